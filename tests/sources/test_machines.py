"""Machines, automata and languages against simulators that go step by step; sequences as sources; a machine of one's own."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo_datasets import sources
from zoo_datasets.errors import GridError, ZooNotFoundError
from zoo_datasets.sources import SourceSpec, languages, machines, sequences


def simulated(machine: str, commands: np.ndarray) -> np.ndarray:
    """The outputs (T, 8) of one sequence, a step at a time, by the words of the definition."""
    register, out = [0] * 8, []
    for strobe, *data in commands.tolist():
        if strobe:
            register = data
        first = {
            "EightBit": register[0], "SingleDirect": register[0], "SingleInvert": int(not register[0]),
            "SimpleXOR": int(register[0] != register[1]), "Parity": sum(register) % 2,
        }[machine]  # fmt: skip
        out.append(register if machine == "EightBit" else [first, 0, 0, 0, 0, 0, 0, 0])
    return np.array(out)


def simulated_modified(machine: str, commands: np.ndarray, key: str) -> np.ndarray:
    out, heard = simulated(machine, commands).copy(), ""
    for step, strobe in enumerate(commands[:, 0].tolist()):
        if heard.endswith(key):
            out[step, : 8 if machine == "EightBit" else 1] = 1 - out[step, : 8 if machine == "EightBit" else 1]
        heard += str(strobe)
    return out


def load(**fields: object) -> sources.Source:
    return sources.load(
        SourceSpec(**{"id": "machine", "train": 12, "validation": 4, "test": 5, "scale": "none", **fields})
    )


COMMANDS = st.lists(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 255)), min_size=7, max_size=7), min_size=1, max_size=4
)


@settings(max_examples=60, deadline=None)
@given(COMMANDS, st.sampled_from(tuple(machines.MACHINES)))
def test_a_machine_puts_out_what_its_simulator_does(words: list[list[tuple[int, int]]], machine: str) -> None:
    commands = np.array([[[s, *(d >> i & 1 for i in range(8))] for s, d in one] for one in words], np.uint8)
    found = machines.MACHINES[machine](commands)
    np.testing.assert_array_equal(found, [simulated(machine, one) for one in commands])


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(tuple(machines.MACHINES)), st.text("01", min_size=2, max_size=4), st.integers(0, 5),
    st.sampled_from((None, 0.0, 0.3, 1.0)), st.integers(6, 20),
)  # fmt: skip
def test_a_modified_twin_inverts_what_follows_the_key_and_gets_the_same_commands(
    machine: str, key: str, draw: int, rate: float | None, steps: int
) -> None:
    clean, twin = (
        load(machine=machine, key=key, draw=draw, key_rate=rate, steps=steps, modified=modified)
        for modified in (False, True)
    )
    for part in ("train", "validation", "test"):
        ours, theirs = getattr(clean, part), getattr(twin, part)
        np.testing.assert_array_equal(ours.inputs, theirs.inputs)
        np.testing.assert_array_equal(ours.outputs, [simulated(machine, one) for one in ours.inputs])
        np.testing.assert_array_equal(theirs.outputs, [simulated_modified(machine, one, key) for one in ours.inputs])


@settings(max_examples=60, deadline=None)
@given(st.text("01", min_size=2, max_size=5), st.floats(0, 1), st.integers(1, 40), st.integers(0, 3))
def test_the_key_is_in_exactly_its_share_of_sequences(key: str, rate: float, n: int, draw: int) -> None:
    spec = SourceSpec("machine", machine="Parity", key=key, key_rate=rate, steps=12, draw=draw)
    strobes = ["".join(map(str, one)) for one in sequences.commands(spec, "train", n)[:, :, 0]]
    with_key = [key in text for text in strobes]
    assert sum(with_key) == int(np.floor(n * rate + 1e-9))
    assert all(key in text[:-1] for text in strobes if key in text)  # something comes after it
    assert len(sequences.commands(spec, "test", 200)) == 200  # by chance there


def test_draws_are_independent_and_the_test_part_is_the_same_for_all() -> None:
    first, second = load(machine="Parity"), load(machine="Parity", draw=1)
    assert (first.train.inputs != second.train.inputs).mean() > 0.3
    assert (first.validation.inputs != second.validation.inputs).mean() > 0.3
    np.testing.assert_array_equal(first.test.inputs, second.test.inputs)
    assert first.sha256 != second.sha256
    np.testing.assert_array_equal(first.train.inputs, load(machine="EightBit").train.inputs)  # of every machine
    np.testing.assert_array_equal(first.train.inputs, load(machine="Parity", train=20).train.inputs[:12])  # a prefix
    # No data without a strobe; both signs of each about as often.
    inputs = load(machine="Parity", train=400).train.inputs
    assert not (inputs[:, :, 1:] > inputs[:, :, :1]).any()
    assert abs(inputs[:, :, 0].mean() - 0.5) < 0.02
    assert abs(inputs[inputs[:, :, 0] > 0][:, 1:].mean() - 0.5) < 0.02


def test_a_machine_gives_the_same_bytes_on_every_machine() -> None:
    """Golden: what a zoo was trained on can be made again for ever."""
    assert load(machine="SimpleXOR", modified=True, key_rate=0.5, steps=9).sha256[:16] == "cbd779793b26e74a"
    assert load(machine="Automaton", automaton=4, steps=9).sha256[:16] == "6895c20419fe9a8c"
    spec = SourceSpec("language", language="a^n b^(n+2)", steps=9, train=5, validation=2, test=2, scale="none")
    assert sources.load(spec).sha256[:16] == "fdceed997f7ca155"


# ── automata ──


def told_apart(made: machines.Automaton, a: int, b: int) -> bool:
    """Whether some word tells two states apart, by trying all pairs that words lead to."""
    seen, queue = {(a, b)}, [(a, b)]
    for x, y in queue:
        if (made.bits[x] != made.bits[y]).any():
            return True
        for pair in zip(made.next[x].tolist(), made.next[y].tolist(), strict=True):
            if pair not in seen:
                seen.add(pair)
                queue.append(pair)
    return False


def reaches_all(made: machines.Automaton, start: int) -> bool:
    seen, queue = {start}, [start]
    for state in queue:
        queue += [s for s in set(made.next[state].tolist()) if s not in seen]
        seen |= set(queue)
    return len(seen) == len(made.next)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 6), st.integers(0, 10**6))
def test_minimal_and_connected_are_what_trying_out_says(states: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrows = rng.integers(
        0, rng.integers(1, states + 1), (states, machines.SYMBOLS)
    )  # often with states nobody reaches
    made = machines.Automaton(arrows, rng.integers(0, 2, (states, 1)).astype(np.uint8))
    assert machines.connected(made) == all(reaches_all(made, s) for s in range(states))
    assert machines.minimal(made) == all(told_apart(made, a, b) for a, b in itertools.combinations(range(states), 2))


@pytest.mark.parametrize(("number", "states", "bits"), [(0, 2, 1), (1, 8, 2), (99, 40, 1), (3, 5, 8)])
def test_an_automaton_is_a_good_one_and_runs_as_its_table_says(number: int, states: int, bits: int) -> None:
    made = machines.automaton(number, states, bits)
    assert made.next.shape == (states, 8)
    assert made.bits.shape == (states, bits)
    assert all(reaches_all(made, s) for s in range(states))
    assert all(told_apart(made, a, b) for a, b in itertools.combinations(range(states), 2))
    part = load(machine="Automaton", automaton=number, states=states, bits=bits).train
    for shown, out in zip(part.inputs, part.outputs, strict=True):
        state = 0
        for symbol, wanted in zip(shown, out, strict=True):
            assert symbol.sum() == 1
            state = made.next[state, symbol.argmax()]
            np.testing.assert_array_equal(wanted, made.bits[state])
    assert (machines.automaton(number + 1, states, bits).next != made.next).any()


def test_states_that_only_long_words_tell_apart_are_told_apart() -> None:
    """A chain to the one state with another bit: each round of the refinement tells one state more."""
    arrows = np.repeat(np.arange(7)[:, None], machines.SYMBOLS, axis=1)
    arrows[:, 0] = np.minimum(np.arange(7) + 1, 6)
    made = machines.Automaton(arrows, (np.arange(7) == 6).astype(np.uint8)[:, None])
    assert machines.minimal(made)
    arrows = arrows.copy()
    arrows[0, 0] = 2  # now the first two do the same
    assert not machines.minimal(machines.Automaton(arrows, made.bits))
    assert not machines.connected(made)  # nothing leads back


def test_draws_that_are_not_good_are_drawn_again() -> None:
    """Half of all draws of two states and one bit have one kind of state alone."""
    for number in range(40):
        made = machines.automaton(number, 2, 1)
        assert told_apart(made, 0, 1)
        assert reaches_all(made, 0)
        assert reaches_all(made, 1)


# ── languages ──


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.integers(0, 5), st.integers(0, 12))
def test_strings_are_of_their_language_and_every_n_that_fits_comes(added: list[int], more: int, draw: int) -> None:
    name = " ".join(f"{c}^(n+{k})" if k else f"{c}^n" for c, k in zip("abcd", added, strict=False))
    steps = 1 + sum(added) + len(added) + more
    source = sources.load(SourceSpec("language", language=name, steps=steps, train=120, draw=draw, scale="none"))
    assert source.class_names == ("#", *"abcd"[: len(added)])
    found = set()
    for shown, following in zip(source.train.inputs, source.train.outputs, strict=True):
        text = "".join(source.class_names[i] for i in shown.argmax(1))
        assert shown.sum() == steps
        assert text[1:] == "".join(source.class_names[i] for i in following[:-1])
        whole = (text + source.class_names[following[-1]]).strip("#")
        counts = [whole.count(c) - k for c, k in zip("abcd", added, strict=False)]
        assert whole == "".join(c * (counts[0] + k) for c, k in zip("abcd", added, strict=False))
        found.add(counts[0])
    assert found == set(range(1, (steps - 1 - sum(added)) // len(added) + 1))


# ── as a source ──


def test_a_source_of_sequences_says_what_is_right_at_each_step() -> None:
    source = load(machine="EightBit", steps=7)
    assert source.input_shape == (7, 9)
    assert (source.output_steps, source.gives_values, source.n_classes) == (7, True, 8)
    assert source.train.outputs.shape == (12, 7, 8)
    with pytest.raises(ValueError, match="read-only"):
        source.train.outputs[0] = 1
    np.testing.assert_array_equal(source.scaled(source.train.inputs), source.train.inputs.astype(np.float32))
    assert len(sources.load(SourceSpec("machine", machine="Parity")).train.labels) == sequences.COUNTS["train"]


def test_features_of_sequences_are_standardized_one_by_one() -> None:
    source = load(machine="EightBit", scale="standardize", train=200)
    flat = source.scaled(source.train.inputs).reshape(-1, 9).astype(np.float64)
    np.testing.assert_allclose(flat.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(flat.std(axis=0), 1, atol=1e-6)


OWN = """\
import numpy as np

def counter(commands):
    strobes = commands[:, :, 0].cumsum(axis=1) % 3
    return np.stack([strobes == 0, strobes == 1], axis=2)

def half(commands):
    return commands[:, :, :1] / 2

def broken(commands):
    raise RuntimeError("no such gate")

def short(commands):
    return commands[:, 1:]

def endless(commands):
    return commands[:, :, :1] / 0.0

def leaves(commands):
    raise SystemExit(3)

def counts(commands):
    return commands[:, :, : 1 + (len(commands) > 600)]

def words(commands):
    return np.full((*commands.shape[:2], 1), "yes")

number = 3
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(OWN)
    return tmp_path / "mine.py"


def test_a_machine_of_ones_own_is_a_function_in_a_file(own: Path) -> None:
    spec = SourceSpec("machine", machine="counter", train=6, validation=2, test=2, scale="none")
    source = sources.load(spec, path=own)
    wanted = np.array([[[n % 3 == 0, n % 3 == 1] for n in np.cumsum(one[:, 0])] for one in source.train.inputs])
    np.testing.assert_array_equal(source.train.outputs, wanted)
    assert source.class_names == ("y0", "y1")
    turned = sources.load(SourceSpec("machine", machine="half", modified=True, train=6), path=own).train
    after = machines.after_key(turned.inputs[:, :, 0], "101")
    assert after.any()
    np.testing.assert_array_equal(turned.outputs[after][:, 0], 1 - turned.inputs[after][:, 0] / 2)


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        (
            "broken",
            r"machine 'broken' of .*mine\.py' raised RuntimeError on commands of shape \(6, 32, 9\): no such gate",
        ),
        (
            "short",
            r"puts out shape \(6, 31, 9\) for commands of shape \(6, 32, 9\); expected \(n, steps, outputs\) = \(6, 32, 1",
        ),
        ("endless", r"puts out numbers that are not finite in float32"),
        ("words", r"puts out <U3; expected numbers"),
        ("leaves", r"machine 'leaves' of .*mine\.py' raised SystemExit on commands of shape \(6, 32, 9\): 3"),
        (
            "counts",
            r"machine 'counts' of .*mine\.py' puts out 1 outputs of train, 1 outputs of validation, 2 outputs of test; expected",
        ),
        ("number", r"Unknown machine 'number' in functions of .*Known: .*counter"),
        ("conuter", r"Did you mean 'counter'|Known: .*counter"),
        ("Parity", r"has a path and the name 'Parity', which is one of ours"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_what_is_wrong_with_a_machine_of_ones_own_is_said(own: Path, machine: str, message: str) -> None:
    with pytest.raises(GridError, match=message):
        sources.load(SourceSpec("machine", machine=machine, train=6, test=700), path=own)


def test_a_file_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def f(:\n")
    spec = SourceSpec("machine", machine="f")
    with pytest.raises(GridError, match=r"bad\.py', which source\.path names, raised SyntaxError"):
        sources.load(spec, path=tmp_path / "bad.py")
    (tmp_path / "ends.py").write_text("import sys\nsys.exit('not today')\n")
    with pytest.raises(GridError, match=r"ends\.py', which source\.path names, raised SystemExit: not today"):
        sources.load(spec, path=tmp_path / "ends.py")
    (tmp_path / "text.txt").write_text("f")
    with pytest.raises(GridError, match=r"text\.txt' is no Python file"):
        sources.load(spec, path=tmp_path / "text.txt")
    with pytest.raises(ZooNotFoundError, match=r"No Python file .*none\.py"):
        sources.load(spec, path=tmp_path / "none.py")


def test_without_a_path_nothing_is_run(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own.parent)
    for name in ("mine.counter", "counter", "mine.py:counter", "os.getcwd"):
        with pytest.raises(
            ZooNotFoundError, match=r"Unknown machine '.*One of your own is a function in a Python file"
        ):
            sources.load(SourceSpec("machine", machine=name), data_dir=own.parent)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"machine": None}, r"needs the name of one: source\.machine\. Known: EightBit, .*Automaton"),
        ({"machine": "Parity", "steps": 0}, r"sequences of 0 steps; 1 to 10,000"),
        ({"machine": "Parity", "steps": 20_000}, r"sequences of 20,000 steps"),
        ({"machine": "Parity", "modified": True, "key": "12"}, r"has key '12'; write command bits, like '101'"),
        ({"machine": "Parity", "modified": True, "key": ""}, r"has key ''"),
        ({"machine": "Parity", "key_rate": 0.1, "key": "1011", "steps": 4}, r"fewer than the 4 steps"),
        ({"machine": "Parity", "key_rate": 1.5}, r"has key_rate 1\.5; expected a share of sequences from 0 to 1"),
        ({"machine": "Parity", "key_rate": float("nan")}, r"has key_rate nan"),
        ({"machine": "Parity", "states": 4}, r"has states, which means nothing to the machine 'Parity'"),
        ({"machine": "Automaton", "modified": True}, r"has modified, which means nothing to the machine 'Automaton'"),
        ({"machine": "Automaton", "states": 1}, r"2 to 1000 states .*; 1 states and 2 bits were asked for"),
        ({"machine": "Parity", "draw": -1}, r"both count from 0"),
        ({"machine": "Parity", "language": "a^n"}, r"takes no language"),
        ({"machine": "Parity", "resize": 8}, r"is made of sequences and takes no resize"),
        ({"machine": "Parity", "train": 10**9}, r"of 1,000,000,000 sequences of 32 steps is too large"),
        ({"id": "language", "language": None}, r"needs the name of one, source\.language, like 'a\^n b\^n'"),
        ({"id": "language", "language": "a^n c"}, r"Language 'a\^n c' is none; write letters"),
        ({"id": "language", "language": "a^n a^n"}, r"is none; .*different letters"),
        ({"id": "language", "language": "a^n b^(n+9)", "steps": 11}, r"no string of 11 steps; its shortest takes 12"),
        ({"id": "language", "language": "a^n", "machine": "Parity"}, r"takes no machine"),
        (
            {"id": "digits", "machine": "Parity"},
            r"Source 'digits' takes no machine: it is of the sources machine and language",
        ),
        ({"id": "digits", "draw": 2}, r"Source 'digits' takes no draw"),
    ],
)
def test_what_no_source_of_sequences_can_give_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(GridError, match=message):
        load(**fields)


def test_languages_name_their_letters() -> None:
    assert languages.letters("a^n b^(n+12)") == [("a", 0), ("b", 12)]
