"""Resource names: parsed whole, written back the same, refused with the form that was expected."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneforge import names
from tuneforge.names import AliasName, InvalidName, JobName, ModelVersionName

IDS = st.from_regex(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
KINDS = [kind for kind in names.ResourceName.__subclasses__() if kind.__module__ == names.__name__]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)  # no deadline: another process on the machine must not fail it
@given(data=st.data())
def test_a_name_is_what_it_was_parsed_from(kind: type[names.ResourceName], data: st.DataObject) -> None:
    """`str(parse(text)) == text` for every kind."""
    text = kind.pattern
    for form in ("project", "dataset", "model", "alias", "job", "deployment", "node", "policy", "queue", "sweep"):
        text = text.replace(f"{{{form}}}", data.draw(IDS))
    text = text.replace("{recipe}", data.draw(st.from_regex(r"[a-zA-Z0-9._@]{4,128}", fullmatch=True)))
    digests = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
    text = text.replace("{digest}", data.draw(digests)).replace("{upload}", data.draw(digests | IDS))
    for number in ("version", "attempt", "step", "validation", "trial"):
        text = text.replace(f"{{{number}}}", str(data.draw(st.integers(1, 10**17))))
    assert str(kind.parse(text)) == text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["", "/", "projects", "projects/", "projects//jobs/", "x" * 10_000, "nodes/A", "\x00"])
def test_what_is_no_name_is_refused_with_the_form(kind: type[names.ResourceName], text: str) -> None:
    """The error shows the expected form and not more than the beginning of a long value."""
    with pytest.raises(InvalidName) as caught:
        kind.parse(text)
    assert kind.pattern in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "bad",
    [
        *("", "A", "1a", "-a", "a-", "a" * 64, "a.b", "a/b", "ä", "a b", "..", "%2e", "a\n", "latest\n"),
        *(
            "..%2f",
            "%252e",
            "a\\b",
            "\u0430dmin",
            "\uff41dmin",
            "a\u200bb",
            "CON",
            "a\x00",
            "\x1b[31m",
            "'; DROP TABLE x",
        ),
        *("{{7*7}}", "${jndi:x}", "%n%s", "a:", "a#b", "a?b"),
    ],
)
def test_a_bad_id_is_refused(bad: str) -> None:
    """An id has the form that the contract gives."""
    assert not names.is_id(bad)
    with pytest.raises(InvalidName):
        JobName.parse(f"projects/p/jobs/{bad}")


@pytest.mark.parametrize("bad", ["0", "-1", "01", "+1", "1.0", "latest", "", "\u0661", "9" * 30])
def test_a_bad_version_is_refused(bad: str) -> None:
    """A version is a whole number from 1 on, in plain digits."""
    with pytest.raises(InvalidName):
        ModelVersionName.parse(f"projects/p/models/m/versions/{bad}")


def test_latest_is_taken_where_it_is_allowed() -> None:
    """`latest` parses to LATEST when asked for, and is written back."""
    text = "projects/p/models/m/versions/latest"
    name = ModelVersionName.parse(text, allow_latest=True)
    assert (name.version, str(name)) == (names.LATEST, text)


def test_a_model_reference_is_a_version_or_an_alias() -> None:
    """The one parser tells the two apart."""
    alias = names.parse_model_reference("projects/p/models/m/aliases/production")
    assert alias == AliasName("p", "m", "production")
    assert alias.parent.version(3) == names.parse_model_reference("projects/p/models/m/versions/3")
    with pytest.raises(InvalidName, match="aliases"):
        names.parse_model_reference("projects/p/models/m")


def test_names_lead_to_their_neighbours() -> None:
    """A job knows its attempts and checkpoints, and those know it."""
    job = JobName("p", "j")
    assert str(job.attempt(2)) == "projects/p/jobs/j/attempts/2"
    assert str(job.checkpoint(0)) == "projects/p/jobs/j/checkpoints/0"
    assert job.attempt(2).parent == job.checkpoint(5).parent == job
    assert names.DatasetName("p", "d").version(1).parent == names.DatasetName("p", "d")
    assert names.ModelName("p", "m").alias("a") == AliasName("p", "m", "a")


def test_the_project_of_any_name() -> None:
    """The project is read from any name that begins with one."""
    assert names.project_of("projects/p") == names.project_of("projects/p/jobs/whatever") == "p"
    for bad in ("", "projects", "projects/", "projects/P/x", "nodes/n", "projects/../x"):
        with pytest.raises(InvalidName):
            names.project_of(bad)


def test_new_ids_are_ids_and_differ() -> None:
    """A fresh id is an id, and another one each time."""
    made = {names.new_id("job") for _ in range(100)}
    assert len(made) == 100
    assert all(names.is_id(each) for each in made)
