"""Mistakes that the simulation has to find: the protocol with one line of it wrong.

Law: `before` stands once in `file`, on one line, and `after` in its place is what somebody might have written; most of them are
hidden by something else most of the time. tests/simulated/test_mutants_apply.py holds that each still fits, and
killing_runs.json says by which seed each is found.
"""

from typing import NamedTuple

LANES = "config/store/lua/lanes.lua"
MAILBOXES = "config/store/lua/mailboxes.lua"
OUTBOXES = "config/store/lua/outboxes.lua"
OUTBOX_LOCKS = "config/store/lua/outbox_locks.lua"
VALUES = "config/store/lua/values.lua"
SERVERS = "config/store/lua/servers.lua"
CHANNELS = "config/store/lua/channels.lua"
INLINE = "config/store/lua/inline_replies.lua"
INVITATIONS = "config/store/lua/invitations.lua"
CAMPAIGNS = "config/store/lua/campaigns.lua"
OPTOUTS = "config/store/lua/optouts.lua"
LETTERS = "config/store/lua/dead_letters.lua"
REPLAYS = "config/store/lua/dead_letter_replay.lua"
STREAMS = "config/store/lua/event_streams.lua"
HOOKS = "config/store/lua/hooks.lua"
LANE_STORE = "workers/store/lanes.py"
CLOCK_DIFFERENCE = "workers/store/clock_difference.py"
FAILOVERS = "workers/store/failovers.py"
OUTBOX_STORE = "workers/store/outboxes.py"
REPLICATION = "config/connections/replication.py"
SEND_STEPS = "workers/sending/send_steps.py"
SEND_POLICY = "workers/sending/send_policy.py"
DRAFTS = "workers/turns/drafts.py"
TURNS = "workers/turns/turns.py"
COMMITTING = "workers/turns/committing.py"
COMPOSITION = "workers/composition.py"
REPLICATION_CHECK = "workers/store/replication_check.py"
CLOCK_STEPS = "workers/clock/clock_steps.py"
ALARM_CLOCK = "workers/clock/alarm_clock.py"
PACER = "workers/clock/invitation_pacer.py"
RETENTION = "workers/clock/retention.py"
REPLAY_DECISION = "workers/dead_letters/replay_decision.py"
ERASE = "workers/erasure/sender_eraser.py"
ARCHIVER = "workers/archiving/stream_archiver.py"
ARCHIVE_ERASING = "workers/archiving/erasing.py"
ENDPOINTS = "workers/hooks/endpoint_runner.py"
ENTRY_READER = "workers/hooks/entry_reader.py"
HOOK_PROCESS = "workers/hooks/hook_process.py"
WRITER = "ingest/intake/mailboxes.py"
SPOOL_DRAIN = "ingest/intake/spool_drain.py"
INLINE_WEB = "ingest/webhooks/inline_replies.py"
API_BACKLOG = "ingest/api/backlog.py"
ADVANCE = "engine/turns/advance.py"
ADMISSION = "engine/turns/admission.py"
INBOUND = "engine/turns/inbound_sms.py"
RECEIPTS = "engine/turns/receipts.py"


class Mutant(NamedTuple):
    """In `file`, `after` stands instead of `before`. `breaks`: which promise, and by what it would be seen."""

    name: str
    file: str
    before: str
    after: str
    breaks: str


_ONE_HOLDER = (
    Mutant(
        "commit_ignores_fence",
        LANES,
        "if not lock or lock.fence ~= fence then",
        "if not lock then",
        "One holder: a worker frozen beyond its lease commits over whoever has the lane now. Two more claims must lie "
        "between, the second still held: then the late LTRIM drops its mail, and the first reply leaves twice.",
    ),
    Mutant(
        "commit_repeat_refused",
        LANES,
        "if read_lane(new.lane) ~= fence then return {0} end",
        "if true then return {0} end",
        "A commit whose reply was lost, made again, counts as done: here a replay says `busy` of a letter that it took, and "
        "the day's SMS are not counted.",
    ),
    Mutant(
        "claim_takes_held_lane",
        LANES,
        "if lock and lock.till > now and not mine then",
        "if lock and lock.till > now + lease and not mine then",
        "Poison stays alone: wake-ups for a lane that a slow worker holds count as its deaths, and an event that killed "
        "nobody becomes a dead letter. Fences hide it else.",
    ),
    Mutant(
        "repeated_claim_refused",
        LANES,
        "local mine = lock and string.match(lock.owner, '^[^;]*') == owner",
        "local mine = false",
        "A claim whose reply was lost is made again and gets the same answer: here the lane waits out its lease, and a "
        "lost reply counts as a death.",
    ),
    Mutant(
        "settlement_ignores_fence",
        OUTBOXES,
        "if not lock or lock.fence ~= tonumber(args.fence) then return 0 end",
        "if not lock then return 0 end",
        "One holder: a delivery worker frozen beyond its lease, after its request, settles a lock that is another's: the "
        "SMS that is being tried is taken a third time, or is recorded as sent twice.",
    ),
    Mutant(
        "fences_do_not_follow_clock",
        VALUES,
        "local first = math.max(tonumber(redis.call('GET', key) or '0') + 1, now * 1000)",
        "local first = tonumber(redis.call('GET', key) or '0') + 1",
        "A server that lost its tail gives no token out twice; and a clock process that begins knows by them that the server's "
        "clock was set back meanwhile: here what rests then waits for as long as that.",
    ),
)

_ALARMS = (
    Mutant(
        "accept_sets_no_alarm",
        MAILBOXES,
        "if first then redis.call('ZADD', alarms, 'LT', ms(now + LOOK_MS), sender) end",
        "if first then redis.call('ZADD', alarms, 'XX', 'LT', ms(now + LOOK_MS), sender) end",
        "Nothing acknowledged is lost: `web` dies between its write and its bell, or the broker is away, and a new "
        "sender's SMS is never looked at.",
    ),
    Mutant(
        "accept_keeps_later_alarm",
        MAILBOXES,
        "if first then redis.call('ZADD', alarms, 'LT', ms(now + LOOK_MS), sender) end",
        "if first then redis.call('ZADD', alarms, 'NX', ms(now + LOOK_MS), sender) end",
        "The same for one who has a session: its alarm is the deadline, and an answer whose wake-up was lost waits for "
        "that, or ends the session.",
    ),
    Mutant(
        "claim_sets_no_alarm",
        LANES,
        "note_alarm(noted, sender, now + lease)",
        "note_alarm(noted, sender, 0)",
        "A worker that dies with a claimed lane is made up for: here nobody rings for it again.",
    ),
    Mutant(
        "commit_forgets_mail_left",
        LANES,
        "note_alarm(noted, sender, (wanted > 0 or is_due(deadline, now)) and now + LOOK_MS or deadline)",
        "note_alarm(noted, sender, deadline)",
        "A worker dies after its commit, before it rings, and mail is left (a START and an answer behind it, or the mail "
        "behind a suspect): nobody comes, nor for later mail, as the mailbox is not empty.",
    ),
    Mutant(
        "commit_sets_no_outbox_alarm",
        LANES,
        "note_alarm(spoken, sender, now + LOOK_MS)",
        "note_alarm(spoken, sender, 0)",
        "A worker dies after its commit, before it rings, or the broker is away: its SMS stay in the outbox for good.",
    ),
    Mutant(
        "lease_sets_no_alarm",
        OUTBOXES,
        "redis.call('ZADD', alarms, ms(now + lease), sender)",
        "redis.call('ZREM', alarms, sender)",
        "A delivery worker that dies with an SMS is made up for: here nobody takes it up.",
    ),
    Mutant(
        "settlement_sets_no_alarm",
        OUTBOXES,
        "redis.call('ZADD', keys.outbox_alarms, ms(now + (rest > 0 and rest or LOOK_MS)), sender)",
        "redis.call('ZREM', keys.outbox_alarms, sender)",
        "An SMS that rests (a backoff, a pause, a permit that is booked) is tried again: here it never is.",
    ),
    Mutant(
        "alarm_taken_and_gone",
        LANES,
        "redis.call('ZADD', alarms, later, sender)",
        "redis.call('ZREM', alarms, sender)",
        "A clock dies between taking an alarm and ringing, or the broker is away: the mail, or the SMS, waits for good.",
    ),
    Mutant(
        "unanswered_alarm_stays_with_conversation",
        LANES,
        "if string.find(scored[i + 1], '.', 1, true) then unanswered[#unanswered + 1] = sender end",
        "",
        "All of `conversation` is down, a START's wake-up is lost: the clock must ring for `ratelimit` too.",
    ),
    Mutant(
        "other_queue_not_woken",
        TURNS,
        "self._waker.wake(_other_queue(queue), claims.other_queue)",
        "pass",
        "A START whose wake-up was lost is rung for at `conversation`, which passes it on: here it waits 5 s more, until "
        "the clock rings for `ratelimit` too.",
    ),
)

_MAIL = (
    Mutant(
        "commit_drops_mailbox",
        LANES,
        "if new.applied ~= '0' then redis.call('LTRIM', new.mailbox, new.applied, -1) end",
        "if new.applied ~= '0' then redis.call('DEL', new.mailbox) end",
        "Nothing acknowledged is lost: an SMS accepted between a claim and its commit is gone.",
    ),
    Mutant(
        "accept_puts_mail_first",
        MAILBOXES,
        "local first = redis.call('RPUSH', mailbox, entry) == 1",
        "local first = redis.call('LPUSH', mailbox, entry) == 1",
        "In order: two SMS that wait together are applied the wrong way round; and one that comes during a turn is trimmed "
        "in the place of what was applied.",
    ),
    Mutant(
        "suspect_takes_newest_mail",
        DRAFTS,
        "claim = msgspec.structs.replace(claim, mail=claim.mail[:1])",
        "claim = msgspec.structs.replace(claim, mail=claim.mail[-1:])",
        "A worker dies while two SMS wait: the next one applies the second, and the first leaves the mailbox.",
    ),
    Mutant(
        "applied_event_not_remembered",
        ADVANCE,
        "applied[event] = turn.lane.clock",
        "applied.pop(event, None)",
        "Applied once: a doubled webhook, or a part of the spool that is handed over twice, is applied twice.",
    ),
    Mutant(
        "displaced_events_not_stored",
        LANE_STORE,
        "displaced_events=applied_events.pack_events(self._optouts, sender, effects.displaced_events),",
        'displaced_events=b"",',
        "Applied once, for days: after 128 more events of the sender, a copy of the first is news.",
    ),
    Mutant(
        "repeats_not_looked_up",
        LANE_STORE,
        "if older_events:",
        "if older_events and state:",
        "A copy of a webhook that comes after its person was erased makes them a lane again, and texts them.",
    ),
    Mutant(
        "lane_forgets_before_repeats_end",
        LANE_STORE,
        "return max(until, draft.claim.now + self._repeat_ms) if until else _ms_or_unchanged(until)",
        "return _ms_or_unchanged(until)",
        "A webhook that is sent again after three days, within the seven, is news: the lane went after two.",
    ),
    Mutant(
        "open_lane_expires",
        LANE_STORE,
        "if draft.effects.has_open:",
        "if draft.effects.has_open and not draft.effects.keep_until:",
        "What is open has no end in Redis: the server's clock is set ahead by some days, and a session is gone with its "
        "lane, without an end and without a record.",
    ),
    Mutant(
        "deadline_waits_behind_mail",
        ADVANCE,
        "    if not hold_deadlines:",
        "    if hold_deadlines:",
        "A late alarm changes nothing: workers are away past a session's deadline, an answer comes after it, and is taken.",
    ),
    Mutant(
        "receipt_recorded_twice",
        RECEIPTS,
        "if known.get(name, -1) >= rank:",
        "if known.get(name, -1) > rank:",
        "Applied once: a doubled status callback is recorded twice.",
    ),
)

_POISON = (
    Mutant(
        "attempts_not_counted",
        LANES,
        "local attempts = mine and lock.attempts or (lock and lock.attempts or 0) + 1",
        "local attempts = mine and lock.attempts or 1",
        "Poison stays alone: an SMS that kills its process is never given up, and kills for good.",
    ),
    Mutant(
        "suspect_claimed_in_batch",
        LANES,
        "if lock and not mine and not suspects then return 3 end",
        "",
        "Poison stays alone: neighbours that are claimed with it share its deaths, and become dead letters too. It takes "
        "an SMS that kills, and other senders who are rung for with it, again and again.",
    ),
    Mutant(
        "no_turn_of_nobody",
        TURNS,
        "if claims.suspects and not self._has_made_turn:",
        "if claims.suspects and self._has_made_turn:",
        "A release that dies at every turn buries nothing: every process dies as it drafts, ten are started one after "
        "another, and the oldest events become dead letters.",
    ),
    Mutant(
        "listed_opt_out_unheard",
        LANES,
        "local answer = {mine and lock.fence or 0, attempts, now, state, opt_outs or '', before, older_events,",
        "local answer = {mine and lock.fence or 0, attempts, now, state, state == '' and opt_outs or '', before, older_events,",
        "A STOP that came while its lane could not be read is in the list alone: once the lane can be read, its session goes "
        "on texting the person.",
    ),
    Mutant(
        "failing_stop_forgotten",
        DRAFTS,
        "_merge_failed_stop(whole, single)",
        "pass",
        "A STOP among what fails holds: one that fails in the engine (its lane cannot be read) becomes a dead letter, and "
        "the person is texted on.",
    ),
    Mutant(
        "merge_forgets_opt_outs",
        "engine/model/effects.py",
        "self.opt_outs |= later.opt_outs",
        "pass",
        "An event that fails and a STOP in one claim: the lane knows of the STOP, the list does not, and forgets it with "
        "the lane.",
    ),
    Mutant(
        "dead_letter_not_stored",
        OUTBOXES,
        "if args.dead_letter_id ~= '' and add_letter(",
        "if args.dead_letter_id ~= '' and disposition ~= STATE.done and add_letter(",
        "What could not be sent is a dead letter: here it is gone without a trace.",
    ),
)

_SENDING = (
    Mutant(
        "takeover_forgets_dead_try",
        OUTBOXES,
        "uncertain = lock.fence > 0 or lock.uncertain",
        "uncertain = lock.uncertain",
        "No two leave for one decision: delivery dies, or loses Redis, after its request, another takes the SMS when the "
        "lease is over by more than 10 s (or its provider cannot be asked), and sends it blindly.",
    ),
    Mutant(
        "takeover_forgets_rest_mark",
        OUTBOXES,
        "uncertain = lock.fence > 0 or lock.uncertain",
        "uncertain = lock.fence > 0",
        "An SMS that rests because nobody knows what came of it (a timeout at the provider that had it) is sent again "
        "instead of asked for.",
    ),
    Mutant(
        "rest_after_lease_forgets_mark",
        OUTBOXES,
        "lock.fence, lock.till, lock.state, lock.tag, lock.uncertain = 0, lock.till + rest, STATE.again, '', true",
        "lock.fence, lock.till, lock.state, lock.tag = 0, lock.till + rest, STATE.again, ''",
        "The same where the provider is asked, and the dead worker's lease has just ended.",
    ),
    Mutant(
        "asked_without_rest",
        OUTBOXES,
        "if abandoned and now < lock.till + rest and asked[string.match(entry, '^%Z*')] then",
        "if abandoned and now < lock.till and asked[string.match(entry, '^%Z*')] then",
        "A provider lists late what it has just got: the try that a frozen worker made at the end of its lease is not "
        "listed yet when another asks, and the SMS leaves twice.",
    ),
    Mutant(
        "repeated_lease_forgets_mark",
        OUTBOXES,
        "return {lock.fence, now, lock.attempts - 1, lock.since, lock.uncertain and 1 or 0, -1, lost, entry}",
        "return {lock.fence, now, lock.attempts - 1, lock.since, 0, -1, lost, entry}",
        "The reply to a take of an SMS that the provider may have is lost, and asked for again: it is sent blindly.",
    ),
    Mutant(
        "settlement_forgets_mark",
        OUTBOXES,
        "since, uncertain = lock.attempts, lock.since, args.uncertain == '1'",
        "since, uncertain = lock.attempts, lock.since, false",
        "The provider had an SMS and did not say so: after its backoff it is sent again instead of asked for.",
    ),
    Mutant(
        "untried_forgets_mark",
        SEND_POLICY,
        "return OutboxUpdate(take, verdict, rest_ms=rest_ms, uncertain=take.uncertain, permit_epoch=epoch)",
        "return OutboxUpdate(take, verdict, rest_ms=rest_ms, permit_epoch=epoch)",
        "An SMS that the provider may have waits for a slot, a permit or the end of a pause: then it is sent blindly. It "
        "takes a try without an answer, and a limit or a pause.",
    ),
    Mutant(
        "late_try_forgets_mark",
        SEND_STEPS,
        "uncertain = take.uncertain",
        "uncertain = False",
        "The worker that took an SMS which the provider may have freezes for 2 s before it begins, leaves it, and the next "
        "one sends it blindly.",
    ),
    Mutant(
        "unknown_outcome_without_recourse_tried_again",
        SEND_POLICY,
        'case OutcomeUnknown(code, why) if recourse == "none":',
        'case OutcomeUnknown(code, why) if recourse == "none" and tries > 1:',
        "What cannot be asked for is not sent again after an outcome that nobody knows. decide_before_attempt says so too.",
    ),
    Mutant(
        "dead_try_without_recourse_tried_again",
        SEND_POLICY,
        'if uncertain and recourse == "none":',
        'if sms.uncertain and recourse == "none":',
        "Where nobody can be asked, delivery that dies after its request leaves a dead letter: here it is sent again.",
    ),
    Mutant(
        "marked_sms_not_asked_for",
        SEND_STEPS,
        'if wire.recourse == "look_up" and may_be_there:',
        'if wire.recourse == "look_up" and take.uncertain:',
        "An SMS that bears its mark itself (from a webhook's answer, behind the first of several, or marked at a failover) "
        "is sent without a look-up.",
    ),
    Mutant(
        "failed_look_up_clears_mark",
        SEND_STEPS,
        "return found, isinstance(found, OutcomeUnknown | ChannelFault)",
        "return found, False",
        "The look-up itself fails (timeout, 5xx, account fault), once: the next try sends blindly.",
    ),
    Mutant(
        "refused_look_up_taken_for_answer",
        SEND_STEPS,
        "if isinstance(found, RetryLater):",
        "if isinstance(found, RetryLater) and found.this_sms_only:",
        "A provider that answers a look-up with `not now` has said nothing of the SMS: the next try sends blindly.",
    ),
    Mutant(
        "refusal_speaks_for_earlier_try",
        SEND_STEPS,
        'says_nothing_of_earlier = outcome is None or wire.recourse == "repeat"',
        "says_nothing_of_earlier = outcome is None",
        "A failover loses a try's lease, the next one is refused while the first is under way: it is said to have been refused, "
        "and reaches the person.",
    ),
    Mutant(
        "late_worker_sends",
        SEND_STEPS,
        "if not is_stopping() and begun_s - sendable.leased_s < MAX_START_DELAY_S:",
        "if not is_stopping():",
        "Late is worse than dead: a worker frozen between taking an SMS and its request sends it when it wakes: after "
        "another has, or long after a STOP was committed.",
    ),
    Mutant(
        "late_worker_sends_after_look_up",
        SEND_STEPS,
        "if is_stopping() or begun_s > latest_s:",
        "if is_stopping():",
        "The same for one that is frozen between a look-up that found nothing and its request.",
    ),
    Mutant(
        "commit_puts_sms_first",
        LANES,
        "waiting = redis.call('RPUSH', new.outbox, unpack(args, at, math.min(at + MANY - 1, to)))",
        "waiting = redis.call('LPUSH', new.outbox, unpack(args, at, math.min(at + MANY - 1, to)))",
        "In order: a session that begins with two SMS, or a reply while one waits.",
    ),
    Mutant(
        "settlement_pops_head",
        OUTBOXES,
        "redis.call('LREM', outbox, 1, args.entry)",
        "redis.call('LPOP', outbox)",
        "A STOP withdraws the SMS that is being tried, the try is accepted, and its settlement takes the confirmation.",
    ),
    Mutant(
        "withdrawn_try_counts_for_next",
        OUTBOXES,
        "elseif lock.state == STATE.gone then -- what it would have had to wait for is nothing to the next one",
        "elseif lock.state == STATE.gone and disposition ~= STATE.again then",
        "A STOP withdraws the SMS that is being tried, whose try fails: the confirmation rests for its backoff and bears "
        "its mark; where nobody can be asked it becomes a dead letter `uncertain`, never tried.",
    ),
    Mutant(
        "withdrawal_leaves_rest",
        LANES,
        "if kept[1] ~= entries[1] then void_rest(outbox_lock, now, kept[1]) end",
        "",
        "The same for an SMS that rests: what is withdrawn was uncertain, and the next one inherits it.",
    ),
    Mutant(
        "ticket_forgotten",
        OUTBOXES,
        "if args.ticket ~= '' then note_ticket(keys.tickets, args.ticket) end",
        "",
        "Two SMS with one text (a question asked again): the second is uncertain, the look-up finds the first, and the "
        "second is recorded as sent with the first one's ticket, though it never left.",
    ),
    Mutant(
        "outbox_lock_expires",
        OUTBOX_LOCKS,
        "redis.call('SET', key, lock_value(lock))",
        "redis.call('SET', key, lock_value(lock), 'PX', ms(math.max(1, lock.till - now + FORGET_MS)))",
        "The lock of an outbox in which an SMS waits has no end: the server's clock is set ahead by more than a week "
        "after a try without an answer, and the SMS is sent blindly.",
    ),
)

_STOPS = (
    Mutant(
        "stop_waits_unseen",
        MAILBOXES,
        "return #mail > LOOKED_AT or any_may_be_stop(mail)",
        "return #mail > LOOKED_AT",
        "From a STOP's 2xx on nothing is taken from the outbox until it is read: workers are slow, or a START is before "
        "it, and SMS leave meanwhile.",
    ),
    Mutant(
        "lease_ignores_waiting_stop",
        OUTBOXES,
        "if stop_may_wait(mailbox) then",
        "if stop_may_wait(outbox) then",
        "The same, in the one place that delivery asks.",
    ),
    Mutant(
        "stop_waits_behind_start",
        MAILBOXES,
        "if may_be_stop(mail[i]) then return i end",
        "if may_be_stop(mail[i]) and kind == 'S' then return i end",
        "A STOP waits for no worker of one kind: all of `ratelimit` is down, a START is before it, and nobody reads it.",
    ),
    Mutant(
        "stop_withdraws_sessions_only",
        LANES,
        "if rare and (#rare.silenced_channels > 0 or #rare.withdrawn_sessions > 0) then",
        "if rare and #rare.withdrawn_sessions > 0 then",
        "A STOP after a session was completed, while its last words wait (a slow or paused channel): they leave.",
    ),
    Mutant(
        "withdrawn_sms_stay",
        LANES,
        "replace_outbox(outbox, kept)",
        "replace_outbox(outbox, entries)",
        "A STOP is committed while SMS wait: they are recorded as unsent, and leave.",
    ),
    Mutant(
        "opt_out_not_in_list",
        LANES,
        "write_opt_outs(optouts, rare.number_hash, opt_outs)",
        "write_opt_outs(optouts, rare.number_hash, read_opt_outs(optouts, rare.number_hash))",
        "A STOP outlives its lane: days later, or after an erasure, an invitation opens a session with them.",
    ),
    Mutant(
        "opt_out_list_not_asked",
        LANES,
        "local answer = {mine and lock.fence or 0, attempts, now, state, opt_outs or '', before, older_events,",
        "local answer = {mine and lock.fence or 0, attempts, now, state, '', before, older_events,",
        "One on an imported list, or erased after a STOP, who has no lane, is invited: a session opens.",
    ),
    Mutant(
        "optout_list_misses_new_lane",
        OPTOUTS,
        "if redis.call('EXISTS', mailbox, keys.lanes[i].lane, keys.lanes[i].lane_lock, keys.lanes[i].outbox) > 0 then",
        "if redis.call('EXISTS', keys.lanes[i].lane) > 0 then",
        "An operator's opt-out while the person's first turn is between claim and commit: the lane is not told, and the "
        "session goes on.",
    ),
    Mutant(
        "opt_out_removed_under_holder",
        OPTOUTS,
        "if lock and lock.till > now then return -1 end",
        "",
        "An operator removes an opt-out while a worker holds the lane: its commit brings it back in the lane, and lane and "
        "list say different things.",
    ),
    Mutant(
        "opt_out_removal_overwrites_lane",
        OPTOUTS,
        "if (redis.call('GET', keys.lane) or '') ~= args.lane_before then return -1 end",
        "",
        "A turn is committed between the operator's read and call: what it applied is undone in the state, though its mail "
        "is gone and its SMS leave.",
    ),
)

_FAILOVERS = (
    Mutant(
        "failover_not_noticed",
        SERVERS,
        "if admitted and not note_newcomer(key, now, admitted, server) then return nil end",
        "",
        "A replica without the tail is promoted after an SMS has left whose settlement it lacks: it is sent again, blindly.",
    ),
    Mutant(
        "claim_of_before_failover_valid",
        LANES,
        "if fence <= void then return {0} end",
        "",
        "A commit is made, its SMS leave, and the promoted replica has the claim alone; the worker's reply was lost, it "
        "commits again: the same SMS wait anew, without a mark.",
    ),
    Mutant(
        "failover_trusts_free_outbox",
        SERVERS,
        "if may_have_left(lock, channel, came) then",
        "if may_have_left(lock, channel, came) and lock then",
        "An SMS that was decided, replicated, sent and settled, and whose settlement is lost: the replica shows a free "
        "outbox, and it is sent again, blindly.",
    ),
    Mutant(
        "failover_trusts_ended_rests",
        SERVERS,
        "if not lock or not RESTS[lock.state] or lock.till < came then return true end",
        "if not lock or not RESTS[lock.state] then return true end",
        "The same where the replica shows a rest that was over before it came (the pause between two SMS, a backoff).",
    ),
    Mutant(
        "failover_trusts_probed_pause",
        FAILOVERS,
        "if paused and (by_operator or not probing):",
        "if paused:",
        "The same where the replica shows a channel paused by its circuit whose probe worked in the lost moment.",
    ),
    Mutant(
        "failover_forgets_turns",
        LANE_STORE,
        "if draft.claim.loss_possible else sms",
        "if draft.claim.loss_possible and draft.claim.attempts > 1 else sms",
        "An SMS is accepted and replicated, applied and answered; the whole turn is lost: applied anew, its reply leaves "
        "twice.",
    ),
    Mutant(
        "failover_asks_at_once",
        SEND_POLICY,
        "return max(0, take.lost_before_ms + OUTBOX_LEASE_MS + UNCERTAIN_REST_MS - take.now)",
        "return max(0, take.lost_before_ms - take.now)",
        "A try that the old server knew of is under way, or not listed yet, when the provider is asked: sent twice.",
    ),
    Mutant(
        "promotion_taken_for_restart",
        FAILOVERS,
        'came_by == b"promoted" or not server.writes_at_once or has_fewer_fences',
        "not server.writes_at_once or has_fewer_fences",
        "A promoted replica that writes at once has lost its tail all the same; by a process that was given no token which "
        "it lacks.",
    ),
    Mutant(
        "settled_on_newcomer",
        OUTBOXES,
        "if not lost_before(keys.server, now) then return UNKNOWN_SERVER end",
        "",
        "A settlement whose reply was lost is written again, on a promoted replica that has no trace of the next SMS's lease: the "
        "rest that it begins is taken for one of before, and that SMS is sent again, without a mark.",
    ),
    Mutant(
        "accept_notes_no_newcomer",
        MAILBOXES,
        "lost_before(keys.server, now) -- mail that a newcomer is given has been applied nowhere else",
        "",
        "What is accepted after a failover is as ever: here, if no clock has looked yet, its replies are uncertain, and "
        "where nobody can be asked they become dead letters, never tried.",
    ),
)

_REPLICAS = (
    Mutant(
        "accepted_without_replicas",
        WRITER,
        "answers = await self._lanes.try_write(commands, within_s)",
        "answers = await self._lanes.try_commands(commands, within_s)",
        "An event is acknowledged that no replica has: a failover loses it for good.",
    ),
    Mutant(
        "leased_without_replicas",
        OUTBOX_STORE,
        "zip(groups, self._failovers.run_commands(groups, commands, replicas=self._replicas), strict=True)",
        "zip(groups, self._failovers.run_commands(groups, commands), strict=True)",
        "An SMS leaves whose decision no replica has: a failover loses that, and another is decided in its place.",
    ),
    Mutant(
        "no_mark_before_wait",
        REPLICATION,
        'return [*commands, mark, ("WAIT", replicas, within_ms)]',
        'return [*commands, ("PING",), ("WAIT", replicas, within_ms)]',
        "An invitation is written, and not acknowledged as replicas lag; posted again it is found there, nothing is written, "
        "and WAIT says at once that replicas have it.",
    ),
    Mutant(
        "too_few_replicas_suffice",
        REPLICATION,
        "if found >= replicas:",
        "if found is not None:",
        "What WAIT says is not looked at: what lagging replicas lack is acknowledged.",
    ),
    Mutant(
        "unreplicated_lease_kept",
        OUTBOX_STORE,
        "self.apply_updates([_leave_unreplicated(each) for each in unreplicated])",
        "pass",
        "An SMS whose lease replicas lack waits until that ends, and may have been tried then.",
    ),
    Mutant(
        "unreplicated_lease_of_certain_sms",
        OUTBOX_STORE,
        "rest_ms=UNREPLICATED_REST_MS, uncertain=lease.uncertain)",
        "rest_ms=UNREPLICATED_REST_MS)",
        "An SMS that may have left is to be asked for, replicas lag, and its lease is put back: it is sent again, blindly.",
    ),
    Mutant(
        "attached_without_replicas",
        INLINE_WEB,
        "(stood,) = await self._lanes.write([function_call(call)])",
        "(stood,) = await self._lanes.run_commands([function_call(call)])",
        "A webhook's answer holds SMS whose decision no replica has.",
    ),
    Mutant(
        "invited_without_replicas",
        API_BACKLOG,
        "return await self._lanes.try_write(commands)",
        "return await self._lanes.try_commands(commands)",
        "An invitation is accepted that no replica has: a failover loses it.",
    ),
    Mutant(
        "confirmed_by_another_server",
        REPLICATION_CHECK,
        "if _parse_history(told) != deployment.history:",
        "if not _parse_history(told):",
        "An operator's opt-out is lost by a failover before replicas were asked; those of the new server have all it knows.",
    ),
    Mutant(
        "count_set_before_its_end",
        PACER,
        'self._lanes, [("INCRBY", slot, sum(needs)), ends, ("GET", before)], transaction=True',
        'self._lanes, [("INCRBY", slot, sum(needs)), ends, ("GET", before)]',
        "A failover comes between the count of what was released and its end: it stays for ever.",
    ),
)

_CLOCKS = (
    Mutant(
        "lane_lease_believed",
        VALUES,
        "if not lock or lock.till <= now + LEASE_MS then return lock, false end",
        "if lock or not lock then return lock, false end",
        "The server's clock is set back by an hour while a worker holds a lane, and dies: nobody gets it for an hour.",
    ),
    Mutant(
        "outbox_lease_believed",
        OUTBOX_LOCKS,
        "if longest and lock.till > now + longest then",
        "if longest and lock.till > now + longest + FORGET_MS then",
        "The same for an SMS that is being tried, or that rests. turn_back moves it too, but not when no clock saw the step.",
    ),
    Mutant(
        "step_back_not_followed",
        ALARM_CLOCK,
        "turn_back(self._redis, shards, self._outboxes, now, behind_ms)",
        "pass",
        "The server's clock is set back: SMS that rest, permits that are booked and mail that waits come late by the step.",
    ),
    Mutant(
        "step_before_start_not_followed",
        ALARM_CLOCK,
        "self._behind_ms[k] = max(self._behind_ms[k], behind_fences_ms(fences, now))",
        "pass",
        "The same while no clock process runs: the next one knows it by the fencing tokens.",
    ),
    Mutant(
        "deadlines_of_wrong_clock_fire",
        DRAFTS,
        "hold = claim.clock.hold_deadlines",
        "hold = False",
        "The server's clock is a day ahead and a worker begins: it ends every session whose alarm rings.",
    ),
    Mutant(
        "mail_from_the_future_ends_sessions",
        DRAFTS,
        "return mail if mail.at <= now else Mail(now, mail.event)",
        "return mail",
        "An answer is accepted while the server's clock is ahead, which is set right before the answer is read: deadlines "
        "until its time are applied, and the session is over.",
    ),
    Mutant(
        "bucket_of_before_step_stays_empty",
        CHANNELS,
        "if full_at > now + burst * each + 1 then full_at, moved = now + burst * each, true end -- the clock was set back",
        "",
        "The server's clock is set back by an hour after permits were taken: no session opens for an hour.",
    ),
    Mutant(
        "pause_of_before_step_stays",
        CHANNELS,
        "if left > RECHECK_MS and paused_by(pause_key) ~= 'operator' then -- no circuit pauses for longer: the clock was set back",
        "if left > RECHECK_MS and left < RECHECK_MS then",
        "The server's clock is set back by an hour while a circuit is open: nothing leaves on the channel for an hour.",
    ),
)

_LIMITS = (
    Mutant(
        "circuit_never_opens",
        CHANNELS,
        "if flow.failures >= enough and now - flow.began >= span then open('circuit', why) end",
        "if flow.failures >= enough and now - flow.began >= span then flow.failures = enough end",
        "No SMS pays for a provider that is down: with one down for hours SMS run out of tries, and it is asked all the time.",
    ),
    Mutant(
        "circuit_never_closes",
        CHANNELS,
        "flow.level, flow.failures, flow.began, closed = 0, 0, 0, 1",
        "flow.failures, flow.began, closed = 0, 0, 1",
        "The probe worked and the channel still sends one SMS a second at the most, each as a probe.",
    ),
    Mutant(
        "everybody_probes",
        CHANNELS,
        "pause_circuit(pause_key, flow, probe_ms)",
        "",
        "While a circuit is open one SMS probes, of all processes: here each that looks does.",
    ),
    Mutant(
        "session_permits_not_taken",
        TURNS,
        "if any(each.effects.opened_by_channel for each in drafts):",
        "if all(each.effects.opened_by_channel for each in drafts):",
        "More STARTs in a minute than the channel has new sessions, or after its day's SMS are decided, in wake-ups that "
        "hold something else too (a START that is refused anyway, a STOP behind a START): all open.",
    ),
    Mutant(
        "permits_of_batch_not_counted",
        COMMITTING,
        "left[channel] -= count",
        "left[channel] -= 0",
        "The same for STARTs of one wake-up, of which the channel has permits for some.",
    ),
    Mutant(
        "bucket_not_written",
        CHANNELS,
        "if granted > 0 or moved then write_bucket(keys.bucket, now, full_at + granted * each) end",
        "if moved then write_bucket(keys.bucket, now, full_at + granted * each) end",
        "The channel's new sessions a minute, invitations a second and requests of a key have no limit.",
    ),
    Mutant(
        "decided_sms_not_counted",
        TURNS,
        "self._channel_store.count_sms(channel, count, now)",
        "self._channel_store.count_sms(channel, 0, now)",
        "The day's SMS of a channel hold back new sessions: here never.",
    ),
    Mutant(
        "daily_sessions_not_counted",
        INBOUND,
        "count_opened_session(thread.main, policy, turn.now)",
        "pass",
        "One person's sessions a day have a cap: here they may START again and again (with a survey that does not cool down).",
    ),
    Mutant(
        "throttle_not_counted",
        ADMISSION,
        "line.throttle_at = max(line.throttle_at, now) + spacing_ms",
        "line.throttle_at = max(line.throttle_at, now)",
        "One person's STARTs a minute have a limit: here they have not.",
    ),
    Mutant(
        "booked_permit_never_void",
        OUTBOXES,
        "if lock.state == STATE.booked and now - lock.till <= FRESH_MS then permit = tonumber(lock.tag) or 0 end",
        "if lock.state == STATE.booked then permit = tonumber(lock.tag) or 0 end",
        "A channel's rate: many SMS book permits, all delivery is away until they are over, and then all leave at once.",
    ),
    Mutant(
        "permit_of_before_pause_good",
        CHANNELS,
        "if rate == 0 or tonumber(wanted) == flow.epoch then",
        "if rate == 0 or tonumber(wanted) then",
        "The same for permits that were booked before a pause, whose end frees the whole bucket.",
    ),
    Mutant(
        "brought_forward_too_soon",
        CHANNELS,
        "local soonest = lock.uncertain and math.max(at, sure) or at",
        "local soonest = at",
        "A pause ends (by the operator, or by a probe) a moment after a try without an answer: its provider is asked before "
        "it lists the SMS, which leaves twice.",
    ),
)

_INLINE_REPLIES = (
    Mutant(
        "lease_ignores_reservation",
        OUTBOXES,
        "if lock and lock.till > now then",
        "if lock and lock.till > now and lock.state ~= STATE.reserved then",
        "While an outbox is reserved nobody else sends: delivery is woken by the commit that the webhook waits for.",
    ),
    Mutant(
        "attach_marks_no_sms",
        INLINE,
        "for i = 1, #args.replies do redis.call('LSET', keys.outbox, i - 1, args.replies[i].marked) end",
        "",
        "Two SMS go into an answer and no callback comes: the first is asked for, the second is sent again.",
    ),
    Mutant(
        "attach_marks_no_lock",
        INLINE,
        "state = STATE.entrusted, tag = args.token, uncertain = true})",
        "state = STATE.entrusted, tag = args.token})",
        "One SMS goes into an answer and no callback comes: it is asked for. Its own mark says so too.",
    ),
    Mutant(
        "attach_without_reservation",
        INLINE,
        "if not is_reserved(lock, args.token) or stop_may_wait(keys.mailbox) then return 0 end",
        "if stop_may_wait(keys.mailbox) then return 0 end",
        "`web` is frozen between its look and attaching for longer than its reservation: delivery sends, and so does it.",
    ),
    Mutant(
        "attach_ignores_waiting_stop",
        INLINE,
        "if not is_reserved(lock, args.token) or stop_may_wait(keys.mailbox) then return 0 end",
        "if not is_reserved(lock, args.token) then return 0 end",
        "A STOP is acknowledged between the look and attaching: the answer holds SMS all the same.",
    ),
    Mutant(
        "attach_trusts_look",
        INLINE,
        "if waiting[i] ~= args.replies[i].entry then return 0 end",
        "if not waiting[i] then return 0 end",
        "A STOP is committed between the look and attaching: what it withdrew leaves in the answer, in the place of its "
        "confirmation.",
    ),
    Mutant(
        "refused_attachment_answered",
        INLINE_WEB,
        "return bool(stood)",
        "return True",
        "Attaching is refused (the reservation is over, a STOP waits) and the answer holds the SMS all the same.",
    ),
    Mutant(
        "poll_ignores_lane_lock",
        INLINE,
        "if redis.call('EXISTS', keys.mailbox, keys.lane_lock) > 0 then return 0 end",
        "if redis.call('EXISTS', keys.mailbox) > 0 then return 0 end",
        "The webhook waits while the lane is held: a replay's or a deadline's turn is under way as the mailbox is empty.",
    ),
    Mutant(
        "reply_confirmed_twice",
        INLINE,
        "if redis.call('LREM', outbox, 1, args.entry) == 0 then return 0 end",
        "redis.call('LREM', outbox, 1, args.entry)",
        "Two callbacks of one SMS at once (or a reply that was lost), another SMS of the answer unheard of: recorded twice.",
    ),
    Mutant(
        "confirmation_ends_rest_of_others",
        INLINE,
        "if args.others_unheard == '1' then return 0 end",
        "",
        "Two SMS in an answer, a callback of the first comes at once: the second is asked for before it has arrived.",
    ),
    Mutant(
        "receipt_ends_rest_on_newcomer",
        INLINE,
        " or not lost_before(keys.server, now) then return 0 end",
        " then return 0 end",
        "A receipt is the first that a promoted replica hears of a sender: the rest that it begins is taken for one of before, and "
        "the next SMS, which had left, is sent again, without a mark.",
    ),
    Mutant(
        "waiting_outbox_reserved",
        INLINE,
        "if taken or redis.call('EXISTS', keys.outbox) == 1 then return 0 end",
        "if taken then return 0 end",
        "An SMS rests after a try without an answer, the person writes: the webhook's answer holds it again.",
    ),
)

_INVITATIONS = (
    Mutant(
        "released_invitation_stays_held",
        INVITATIONS,
        "redis.call('HDEL', keys.held_invitations, id)",
        "",
        "Two clocks read one due invitation, or a reply is lost: it becomes mail twice, which its id makes harmless; what "
        "was held stays.",
    ),
    Mutant(
        "invitation_held_again",
        INVITATIONS,
        "new[i] = redis.call('SET', session, ms(now) .. ' ' .. sender, 'NX', 'PXAT', until_ms) and 1 or 0",
        "new[i] = redis.call('SET', session, ms(now) .. ' ' .. sender, 'PXAT', until_ms) and 1 or 0",
        "The inviter posts again: an invitation that was withdrawn, or whose person was erased while it was held, is held "
        "anew; one that is open is known since later.",
    ),
    Mutant(
        "withdrawal_of_what_was_released",
        INVITATIONS,
        "if redis.call('ZREM', keys.held_ids, args.id) == 0 then return 0 end",
        "redis.call('ZREM', keys.held_ids, args.id)",
        "A clock releases an invitation while `web` withdraws it, or two find it expired: records say that it was refused, "
        "and it opens, or say so twice.",
    ),
    Mutant(
        "reference_taken_twice",
        INVITATIONS,
        "local first = redis.call('SET', key, fingerprint, 'NX', 'PXAT', args.references[i].until_ms)",
        "local first = redis.call('SET', key, fingerprint, 'PXAT', args.references[i].until_ms)",
        "An inviter uses a reference again, for another number: both are invited.",
    ),
    Mutant(
        "invitations_take_no_session_permits",
        PACER,
        "admitted = self._channel_store.admit_sessions(name, paced, now)[0] if paced else 0",
        "admitted = self._channel_store.afford_sessions(name, paced, now)[0] if paced else 0",
        "Invitations count against the channel's new sessions a minute.",
    ),
    Mutant(
        "released_sms_not_reserved",
        PACER,
        "return awake[: self._reserve_daily_sms(name, now, awake[:admitted])]",
        "return awake[:admitted]",
        "The day's SMS: invitations are released while workers are away, so that what they need is not counted yet.",
    ),
)

_CAMPAIGNS = (
    Mutant(
        "released_counts_as_held",
        INVITATIONS,
        "change_state(changes, keys.campaign_sessions, id, 'waiting')",
        "",
        "A campaign's invitation is released, and what it becomes is a dead letter or nothing yet: it counts as held.",
    ),
    Mutant(
        "withdrawn_counts_as_held",
        INVITATIONS,
        "change_state(changes, keys.campaign_sessions, args.id, args.state)",
        "",
        "An invitation is withdrawn, or expires, before its turn: its campaign waits for it for ever.",
    ),
    Mutant(
        "turn_changes_no_count",
        LANES,
        "change_state(changes, keys.campaign_sessions, each.id, each.state)",
        "",
        "A turn opens or ends a session of a campaign, which counts it as waiting.",
    ),
    Mutant(
        "former_state_keeps_its_count",
        CAMPAIGNS,
        "add_change(changes, campaign, of, was, -1)",
        "",
        "Each state that a session has been in counts it.",
    ),
    Mutant(
        "counts_begin_anew",
        CAMPAIGNS,
        "local all = known.counts or {}",
        "local all = {}",
        "A campaign counts what changed last.",
    ),
    Mutant(
        "letter_ends_its_session",
        CAMPAIGNS,
        "local ONGOING = {held = true, waiting = true, open = true, ['refused/dead_letter'] = true}",
        "local ONGOING = {held = true, waiting = true, open = true}",
        "An invitation becomes a dead letter, and is replayed: what it opens is not counted.",
    ),
    Mutant(
        "erased_session_is_counted",
        CAMPAIGNS,
        "for i = 1, #args.sessions do change_state(changes, keys.campaign_sessions, args.sessions[i], '') end",
        "",
        "A person of a campaign is erased: it counts a session of which nothing is known.",
    ),
)

_DEAD_LETTERS = (
    Mutant(
        "replayed_letter_stays",
        LANES,
        "remove_letter(dead, index, reasons, audit, each.id, each.by, each.outcome)",
        "write_audit(audit, each.id, {}, each.by, each.outcome)",
        "A letter goes in the commit that applies it: here an SMS that is replayed again leaves twice.",
    ),
    Mutant(
        "resolved_letter_replayed",
        LANES,
        "if redis.call('HEXISTS', dead, resolutions[i].id) == 0 then return {0} end",
        "",
        "One operator drops a letter while another's replay is between claim and commit: dropped, and sent.",
    ),
    Mutant(
        "replay_takes_held_lane",
        REPLAYS,
        "if lock.till > now then return 1 end",
        "",
        "A replay waits for whoever holds the lane. The worker's commit is refused then, and its mail read again.",
    ),
    Mutant(
        "replay_clears_deaths",
        REPLAYS,
        "if lock.attempts > 0 and (#mail > 0 or (deadline > 0 and deadline <= now)) then return 1 end",
        "",
        "An operator replays a letter of one whose SMS kills workers, between two deaths: it is never given up.",
    ),
    Mutant(
        "replay_ignores_waiting_stop",
        REPLAY_DECISION,
        "if any(map(may_opt_out, _readable_events(lane.mail))):",
        "if any(map(may_opt_out, _readable_events(lane.mail[1:]))):",
        "No SMS is put into an outbox while mail waits that may be a STOP. lease_sms holds it, and the STOP withdraws it.",
    ),
    Mutant(
        "replay_texts_opted_out",
        REPLAY_DECISION,
        "if _opted_out_since(lane, before, sms.channel):",
        "if not lane.state and _opted_out_since(lane, before, sms.channel):",
        "An SMS fell, its person said STOP, an operator replays it: it leaves.",
    ),
)

_ERASURE = (
    Mutant(
        "erasure_ignores_new_mail",
        OPTOUTS,
        "if table.concat(redis.call('LRANGE', keys.mailbox, 0, -1)) ~= args.mail_before then return {} end",
        "",
        "A STOP is acknowledged between the eraser's read and its call: it is lost.",
    ),
    Mutant(
        "erasure_ignores_new_state",
        OPTOUTS,
        "if (redis.call('GET', keys.lane) or '') ~= args.lane_before then return {} end",
        "",
        "A turn (an opt-in, or an SMS that came meanwhile) is committed between the eraser's read and its call: it is undone "
        "in the list, or a copy of its webhook is news.",
    ),
    Mutant(
        "erasure_forgets_known_events",
        ERASE,
        "known_events=applied_events.pack_events(self._optouts, sender, _known_events(stored, mail)),",
        'known_events=b"",',
        "Applied once, though the person is erased: a copy of a webhook makes them a lane again.",
    ),
    Mutant(
        "erasure_forgets_waiting_events",
        ERASE,
        "known_events=applied_events.pack_events(self._optouts, sender, _known_events(stored, mail)),",
        "known_events=applied_events.pack_events(self._optouts, sender, _known_events(stored, [])),",
        "The same for mail that waited.",
    ),
    Mutant(
        "erasure_leaves_lane_lock",
        ERASE,
        "            keyspace.lane_lock_key,",
        "",
        "A worker holds the lane as its person is erased: its commit brings them back.",
    ),
    Mutant(
        "erasure_leaves_outbox_lock",
        ERASE,
        "            keyspace.outbox_lock_key,",
        "",
        "A try is under way as its person is erased: its settlement writes what was said, or a dead letter.",
    ),
    Mutant(
        "archive_erased_without_lock",
        ARCHIVE_ERASING,
        "database.lock_position(connection, EVENTS_SOURCE, shard)",
        "pass",
        "The archiver has read a page before the erasure, and commits it after: the person is in the archive. SQLite has "
        "one writer; only PostgreSQL can show it.",
    ),
)

_ARCHIVE = (
    Mutant(
        "archived_position_moves_back",
        STREAMS,
        "if known and not is_later(args.id, known) then return 1 end",
        "",
        "A note that comes late, or of a second process, moves the position back; hooks may then skip what was trimmed.",
    ),
    Mutant(
        "archived_beyond_stream",
        STREAMS,
        "if is_later(args.id, last) then return 0 end",
        "",
        "After a failover the archive is beyond the stream: what comes below is trimmed though no archive has it.",
    ),
    Mutant(
        "trim_ignores_archive",
        STREAMS,
        "if is_later(before, archived) then before = string.match(archived, '^%S+') end",
        "",
        "The archive is away for longer than PARLEY_STREAM_DAYS: what it lacks is trimmed.",
    ),
    Mutant(
        "archive_told_before_commit",
        ARCHIVER,
        'faults.reach("after_read_stream")',
        "note_archived(self._redis, {k: (EntryId.parse(at), 0) for k, page in pages.items() for at, _ in page.entries[-1:]})",
        "The archiver dies between its note and its commit, stays away, and a clock trims what no archive has.",
    ),
    Mutant(
        "archive_does_not_rejoin",
        ARCHIVER,
        "if rejoin_stream(connection, self._redis, k, ends[k]):",
        "if False and rejoin_stream(connection, self._redis, k, ends[k]):",
        "After a failover with a clock behind, what comes at ids below the position is never archived.",
    ),
    Mutant(
        "archive_takes_any_entry_for_its_own",
        ARCHIVER,
        "return archived is None or archived == stored_content(page.at_position)",
        "return True",
        "After a failover with a clock behind, what comes at the very id of the position is never archived.",
    ),
    Mutant(
        "archive_knows_streams_by_ids",
        ARCHIVER,
        "return tips.tip(k) != self._read_to.get(k) and self._held_until_s.get(k, 0.0) <= now_s",
        "return [tips.last_ids[k]] != [*self._read_to.get(k, ())][:1] and self._held_until_s.get(k, 0.0) <= now_s",
        "The same, if nothing more comes in that shard: nobody looks.",
    ),
    Mutant(
        "retention_takes_open_sessions",
        RETENTION,
        "kept[session] = keeps[version]",
        "kept[session] = keeps[version]; shard.due_sessions.add(session)",
        "What is open is kept: an hour's sweep while a session of a survey with `keep` is open deletes what was said in it.",
    ),
)

_HOOKS = (
    Mutant(
        "hook_moves_before_delivery",
        ENDPOINTS,
        "done = self._done.get(k, ())",
        "await self._commit({k: at}); done = self._done.get(k, ())",
        "At least once: a process dies, or its endpoint fails, between the position and the request: never told.",
    ),
    Mutant(
        "hook_moved_without_lease",
        HOOKS,
        "if not lease or lease.fence ~= tonumber(args.token) then return 0 end",
        "if not lease then return 0 end",
        "A process frozen beyond its lease moves positions that are another's: after an operator's rewind the events that "
        "he wanted again are left out.",
    ),
    Mutant(
        "hook_taken_from_holder",
        HOOKS,
        "if is_others and lease.till > now then return {0, now} end",
        "",
        "One process an endpoint: two that look at once both tell it, so that a person's events come out of order.",
    ),
    Mutant(
        "hook_process_outlives_lease",
        ENDPOINTS,
        "return is_leased and not self._is_paused",
        "return not self._is_paused",
        "Late is worse than dead: a process frozen beyond its lease goes on with its requests beside the next one.",
    ),
    Mutant(
        "hook_skips_trimmed",
        ENTRY_READER,
        "may_be_trimmed = not page.has_position and self._may_be_trimmed(k, position)",
        "may_be_trimmed = not page.entries and self._may_be_trimmed(k, position)",
        "Nothing is left out: an endpoint that is far behind is told what the archive alone has.",
    ),
    Mutant(
        "hook_skips_lost_tail",
        ENTRY_READER,
        "if not page.has_position and position != BEGINNING and self._is_lost(k, position):",
        "if page.has_position and position != BEGINNING and self._is_lost(k, position):",
        "After a failover with a clock behind, events at ids up to the position are never told.",
    ),
)

_HOOK_SERVERS = (
    Mutant(
        "hook_lease_good_on_any_server",
        HOOKS,
        "local mine = lease and not is_others and is_from_here(lease, now)",
        "local mine = lease and not is_others",
        "After a failover, what comes at the id of a position that a process has in mind is never told.",
    ),
    Mutant(
        "hook_moves_on_any_server",
        HOOKS,
        "if not is_from_here(lease, now) then return 0 end",
        "",
        "A request is under way while a server fails over: its position, which that has lost, is stored there.",
    ),
    Mutant(
        "hook_told_before_its_server_is_known",
        ENDPOINTS,
        "await self._confirm_lease()",
        "pass",
        "After a failover, what follows the id of a position is told before what has that id now.",
    ),
    Mutant(
        "hook_keeps_pages_of_another_server",
        HOOK_PROCESS,
        "self.source.forget_pages()",
        "pass",
        "An endpoint that is taken anew after a failover is told what was lost, from a page that was kept, and passes over what "
        "has its ids now.",
    ),
)

_SPOOL = (
    Mutant(
        "spooled_part_noted_before_acceptance",
        SPOOL_DRAIN,
        "await self._deliver_part(part, PART_TIMEOUT_S)",
        "await _in_thread(self._spool.save_position, part.end_position); await self._deliver_part(part, PART_TIMEOUT_S)",
        "`web` dies, or Redis goes away again, while a part is handed over: it is passed over.",
    ),
    Mutant(
        "spool_emptied_before_acceptance",
        SPOOL_DRAIN,
        "await self._deliver_part(part, WRITE_TIMEOUT_S)",
        "await _in_thread(self._spool.truncate_file, file); await self._deliver_part(part, WRITE_TIMEOUT_S)",
        "The same for the last part.",
    ),
    Mutant(
        "event_overtakes_spool",
        WRITER,
        "if spool is not None and self.spool_in_use:",
        "if spool is None and self.spool_in_use:",
        "In order: Redis is back, an SMS comes in before the spool is handed over, and is applied first.",
    ),
    Mutant(
        "spool_drained_by_two",
        SPOOL_DRAIN,
        "if ours and await self._lanes.is_reachable():",
        "if await self._lanes.is_reachable():",
        "Two `web` processes hand over one file: the second reads on in what is spooled after the first has emptied it, "
        "and puts aside what it cannot read.",
    ),
    Mutant(
        "spool_forgets_age",
        WRITER,
        "await self._put_in_mailboxes(entries, [each.age_ms(now) for each in events], within_s)",
        "await self._put_in_mailboxes(entries, [0 for _ in events], within_s)",
        "An event is applied at the time of its acknowledgement: an answer given in time, spooled past the deadline, is late.",
    ),
)

_FOUND = (
    Mutant(
        "marked_sms_sought_since_its_known_try",
        SEND_POLICY,
        "known = take.first_attempt_ms and not sms.uncertain and take.first_attempt_ms <= take.now",
        "known = take.first_attempt_ms and take.first_attempt_ms <= take.now",
        "After a failover an SMS that left before is looked for among later ones, since its first lease there was noted: it "
        "leaves twice.",
    ),
    Mutant(
        "claims_void_by_the_clock",
        LANES,
        "if fence <= void then return {0} end",
        "if fence < lost * 1000 then return {0} end",
        "A failover, then the server's clock is set back: every commit is refused until it is there again, and innocent "
        "events are given up.",
    ),
    Mutant(
        "future_loss_believed",
        SERVERS,
        "if lost > now then",
        "if false then",
        "The same: what comes in is uncertain until the clock is there again, and an SMS rests as long before it is asked for.",
    ),
    Mutant(
        "first_look_at_the_clock_by_mail",
        COMPOSITION,
        "lanes.look_at_clock()",
        "pass",
        "The server's clock is set after a worker's start and before its first lane: it does not know which clock is wrong, "
        "and a session ends early.",
    ),
    Mutant(
        "missed_steps_not_followed",
        CLOCK_STEPS,
        "return self._last is None or asked_s - self._last[2] > LONGEST_GAP_S",
        "return self._last is None",
        "The only clock process stands still while the server's clock is set ahead and back: what rested meanwhile comes late.",
    ),
    Mutant(
        "dated_by_both_steps",
        CLOCK_DIFFERENCE,
        "at=max(mail.at + self.correction_ms, self.agreed_ms)",
        "at=mail.at + self.correction_ms",
        "The server's clock is set ahead by 40 s, an SMS is accepted, and it is set ahead by an hour: the session that it opens "
        "ends at once when the clock is right.",
    ),
    Mutant(
        "wait_taken_for_difference",
        CLOCK_DIFFERENCE,
        "waited_ms = 0 if asked_s is None else round((seconds - asked_s) * 1_000)",
        "waited_ms = 0",
        "A worker stands still for 30 s and more as it reads what it has claimed, and nobody else comes: it takes the server's "
        "clock for one that was set back, and an answer that came in time comes as late as itself.",
    ),
    Mutant(
        "events_forgotten_by_wrong_clock",
        LANE_STORE,
        "return 0 if clock.hold_deadlines else now - self._repeat_ms",
        "return now - self._repeat_ms",
        "The server's clock is days ahead for a moment: an open lane forgets what it applied seconds ago, and a copy is news.",
    ),
    Mutant(
        "failover_takes_back_what_was_moved",
        ALARM_CLOCK,
        "self._has_failed_over = newcomers > self._newcomers",
        "self._has_failed_over = False",
        "The server's clock is set back by an hour, the clock process moves what waits by as much, and a failover loses that at "
        "once: somebody waits for an hour.",
    ),
)
"""What the simulation has found: each takes its mend out again."""

MUTANTS: tuple[Mutant, ...] = (
    *_FOUND,
    *_ONE_HOLDER,
    *_ALARMS,
    *_MAIL,
    *_POISON,
    *_SENDING,
    *_STOPS,
    *_FAILOVERS,
    *_REPLICAS,
    *_CLOCKS,
    *_LIMITS,
    *_INLINE_REPLIES,
    *_INVITATIONS,
    *_CAMPAIGNS,
    *_DEAD_LETTERS,
    *_ERASURE,
    *_ARCHIVE,
    *_HOOKS,
    *_HOOK_SERVERS,
    *_SPOOL,
)
