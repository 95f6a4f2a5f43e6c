"""The root of all errors that Parley raises, and the tree of them.

An error's text is a sentence for a person: what happened, to what, what to do. A program decides by its class and its
fields, never by its text.

ParleyError
    InvalidFilterError                 config.archive.result_filters
        SeveralClocksError             workers.results.written_filters
    ServerAwayError                    config.connections.cluster_routing
    RedisUrlError                      config.connections.redis_url
    NotReplicatedError                 config.connections.replication
    NoPrimaryError                     config.connections.sentinel_connections
    NotPrimaryError                    config.connections.server_connections
    InvitationApiError                 config.invitations.invitation_client
    PeopleFileError                    config.invitations.people_table
    UnknownCountryError                config.invitations.people_table
    ConfigError                        config.settings.config_errors
    _ContactsFileError                 config.settings.contacts
    CsvFileError                       config.settings.csv_files
    MissingRightError                  config.store.missing_rights
    InvalidSecretError                 engine.hooks.signature
    MissingExtraError                  engine.model.extras
    UnreadableLaneError                engine.model.lane
    BadPatternError                    engine.model.patterns
    TranscriptError                    engine.proofs.transcripts
    TooManySpotsError                  engine.proofs.walks
    UnplayableWalkError                engine.proofs.witness
    ForgedWebhookError                 engine.providers
    UnreadableWebhookError             engine.providers
    UnusableChannelError               engine.providers
    DocumentSyntaxError                engine.surveys.documents
    InvalidSurveyError                 engine.surveys.findings
    ConversionError                    engine.surveys.questions_conversion
    UnknownChannelError                engine.turns.turn
    UnknownStepError                   engine.turns.turn
    UnknownVersionError                engine.turns.turn
    InvitationRejectedError            ingest.api.invitation_parser
    InvalidCursorError                 ingest.api.page_cursor
    ApiError                           ingest.api.problems
        ArchiveUnavailableError        ingest.api.archive_reader
    InvalidParameterError              ingest.api.query_parameters
    UntextableNumberError              ingest.api.textable_numbers
    SimulatedPhoneError                ingest.commands.phone
    _RefusedRequestError               ingest.connections
    RedisUnavailableError              ingest.intake.mailboxes
        MailboxFullError               ingest.intake.mailboxes
        RedisAndSpoolUnavailableError  ingest.intake.mailboxes
        WrongRedisTypeError            ingest.intake.mailboxes
    SpoolError                         ingest.intake.spool
    RedisOlderThanArchiveError         workers.archiving.lost_tail
    InvalidNumberError                 workers.commands.cli_numbers
    InvalidEntryError                  workers.commands.optout
    ApiUnavailableError                workers.console.api_client
    ArchiveAwayError                   workers.console.console_archive
    InvalidOrderError                  workers.console.inviting.upload_order
    JobFailedError                     workers.console.jobs.job_runner
    SearchEndedError                   workers.console.log_name_search
    ExportAbandonedError               workers.console.results.result_stream
    OidcRefusedError                   workers.console.sign_in.oidc_errors
        UnknownKeyError                workers.console.sign_in.id_token
    OidcUnavailableError               workers.console.sign_in.oidc_errors
    NotSignedInError                   workers.console.sign_in.request_guard
    BadConversationError               workers.console.surveys.engine_phone
    LayoutFailedError                  workers.console.surveys.graph_layout
    NoLivePhoneError                   workers.console.surveys.live_phone
    ArchiveNotErasedError              workers.erasure.sender_eraser
    LaneBusyError                      workers.erasure.sender_eraser
    FileExistsAlreadyError             workers.exporting.output_file
    TooManyColumnsError                workers.exporting.xlsx_writer
    ArchiveBusyError                   workers.hooks.archive_questions
    _ForbiddenAddressError             workers.hooks.endpoint_client
    PutOffError                        workers.hooks.endpoint_runner
    RunnerStoppedError                 workers.hooks.endpoint_runner
    ArchiveBehindError                 workers.hooks.event_source
    MiscountError                      workers.resharding.resharding
    StillRunningError                  workers.resharding.resharding
    UnsplittableError                  workers.resharding.shard_split
    EmbeddedServerError                workers.runtime.embedded_redis
    ServerProgramError                 workers.runtime.server_program
    TooLateToSendError                 workers.sending.deadline_transport
    NothingSentError                   workers.sending.provider_route
    NotConfirmedError                  workers.store.replication_check

What Redis, the operating system and msgspec raise goes through as it is, where nobody can say more of it.
"""


class ParleyError(Exception):
    """Any error of ours."""
