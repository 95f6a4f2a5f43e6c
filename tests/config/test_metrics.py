"""Every metric is ours by name and has labels of a bounded kind."""

from config import metrics

BOUNDED = {
    "by", "channel", "code", "how", "kind", "outcome", "queue", "reason", "role", "server", "state", "step", "survey",
}  # fmt: skip


def test_names_and_labels():
    for family in metrics.REGISTRY.collect():
        assert family.name.startswith("parley_")
        assert family.documentation
    declared = [
        value for name, value in vars(metrics).items() if name.isupper() and hasattr(value, "_labelnames")
    ]
    assert len(declared) > 10
    assert all(set(metric._labelnames) <= BOUNDED for metric in declared)


def test_exposition_holds_what_was_counted():
    metrics.DROPPED.labels("clinic", "a_test").inc(2)
    assert b'parley_dropped_total{channel="clinic",reason="a_test"} 2.0' in metrics.exposition()
