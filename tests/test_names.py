"""A name means one thing, and what is in a file stands on its label. `make figures` prints what is held here."""

from tests.figures import ALIKE_BY_DESIGN, LINE_LENGTH, ROOT, Source

SOURCE = Source(ROOT)


def test_a_class_name_stands_once():
    twice = SOURCE.class_names_used_twice()
    assert {name: files for name, files in twice.items() if name not in ALIKE_BY_DESIGN} == {}
    assert twice.keys() >= ALIKE_BY_DESIGN.keys(), "what stands once need not be excused"


def test_a_file_name_stands_once():
    assert SOURCE.basenames_used_twice() == {}


def test_a_folder_can_be_taken_in_at_a_glance():
    assert max(SOURCE.files_by_folder().values()) <= 21


def test_to_read_one_module_nobody_reads_more_than_twenty_in_a_row():
    chain = SOURCE.longest_import_chain()
    assert len(chain) <= 20, " -> ".join(chain)


def test_most_names_say_more_than_a_word():
    assert SOURCE.one_word_share() <= 0.4


def test_lines_of_code_fit():
    assert SOURCE.long_code_lines() == [], f"longer than {LINE_LENGTH}"
