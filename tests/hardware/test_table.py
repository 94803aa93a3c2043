from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from assay.architecture import Architecture
from assay.errors import ExportRefused, ForeignMachine, InvalidSetting, InvalidStudy
from assay.hardware.device import Device
from assay.hardware.fit import Fit
from assay.hardware.table import LatencyTable, Validation
from assay.space.choices import OneOf
from assay.space.space import Space
from assay.testing import FakeDevice, tiny_space

EXAMPLE = torch.zeros(1, 6)
PER_WEIGHT, PER_LAYER, PRICE = 1e-4, 2e-3, 5e-3


def additive_ms(module: nn.Module) -> float:
    """The latency of a machine on which layers add up and a call has its price."""
    layers = [m for m in module.modules() if not m._modules and not isinstance(m, nn.Identity)]
    return (
        PRICE + PER_LAYER * len(layers) + PER_WEIGHT * sum(p.numel() for p in module.parameters())
    )


@pytest.fixture(scope="module")
def space() -> Space:
    return tiny_space()


@pytest.fixture(scope="module")
def table(space: Space) -> LatencyTable:
    return LatencyTable.build(space, FakeDevice(additive_ms), example=EXAMPLE)


def test_parts_that_add_up_give_the_whole(space, table):
    for point in list(space.all())[::50]:
        assert table.predict(point) == pytest.approx(additive_ms(space.build(point)), rel=5e-3)


def test_a_prediction_is_the_sum_that_the_docstring_tells(space, table):
    for point in list(space.all())[::200]:
        units, fit = table.calls.of(point), table.fit
        own = sum(table.units[u.key] for u in units)
        weights = sum(u.counts.weight_bytes for u in units)
        expected = (
            fit.network_ms + fit.scale * own + fit.unit_ms * len(units)
            + fit.weight_byte_ms * weights
        )  # fmt: skip
        assert table.predict(point) == pytest.approx(expected, rel=1e-12)
        blocks = table.blocks(point)
        assert fit.network_ms + sum(b["latency_ms"] for b in blocks) == pytest.approx(expected)
        assert [b["label"] for b in blocks] == [u.path for u in units]
        assert sum(b["macs"] for b in blocks) == table.calls.counts(point).macs


def test_every_architecture_can_be_predicted(space, table):
    assert all(table.missing(point) == () for point in space.all())


def test_a_unit_that_was_never_measured_is_named(space):
    built = LatencyTable.build(space, FakeDevice(additive_ms), example=EXAMPLE)
    point = space.largest()
    unit = built.calls.of(point)[-1]
    del built.units[unit.key]
    assert built.missing(point) == (unit.key,)
    with pytest.raises(InvalidSetting, match=r"'neck' as Linear\(.*build the table anew"):
        built.predict(point)


def test_building_tells_its_progress_to_the_end(space):
    told: list[tuple[int, int]] = []
    LatencyTable.build(
        space, FakeDevice(additive_ms), example=EXAMPLE, on_progress=lambda *at: told.append(at)
    )
    done = [d for d, _ in told]
    assert done == sorted(done)
    assert len({total for _, total in told}) == 1
    assert told[-1][0] == told[-1][1]


def test_one_seed_fits_to_the_same_networks(space, table):
    again = LatencyTable.build(space, FakeDevice(additive_ms), example=EXAMPLE)
    other = LatencyTable.build(space, FakeDevice(additive_ms), example=EXAMPLE, seed=1)
    assert (again.fitted, again.fit, again.units) == (table.fitted, table.fit, table.units)
    assert other.fitted != table.fitted


def test_validation_is_on_networks_that_the_fit_never_saw(space, table):
    found = table.validate(12, seed=0)
    unseen = [Architecture.from_json(text) for _, _, text, _ in found.pairs]
    assert len(set(unseen)) == 12
    assert not set(unseen) & set(table.fitted)
    for (predicted, measured, _, macs), point in zip(found.pairs, unseen):
        assert predicted == table.predict(point)
        assert measured == additive_ms(space.build(point))
        assert macs == table.calls.counts(point).macs
    assert found.within_10 == 1.0
    assert found.tau >= 0.95
    assert found.rmse_ms <= 5e-3 * max(m for _, m, _, _ in found.pairs)
    told = found.to_dict()
    assert json.loads(json.dumps(told))["pairs"][0][2] == dict(unseen[0])


def test_macs_that_are_shown_are_of_one_sample(space, table):
    example = torch.zeros(4, 6)
    batched = LatencyTable.build(space, FakeDevice(additive_ms, batch=4), example=example)
    point = space.largest()
    assert [b["macs"] for b in batched.blocks(point)] == [b["macs"] for b in table.blocks(point)]
    for _, _, text, macs in batched.validate(3).pairs:
        assert macs == table.calls.counts(Architecture.from_json(text)).macs


def test_one_network_has_no_order(table):
    assert math.isnan(table.validate(1).tau)


def test_a_tau_that_is_none_is_null_in_json():
    told = Validation(0.1, float("nan"), 1.0, ((1.0, 1.1, "{}", 5.0),)).to_dict()
    assert told["tau"] is None
    assert json.loads(json.dumps(told, allow_nan=False))["pairs"] == [[1.0, 1.1, {}, 5.0]]
    assert Validation(0.1, 0.5, 1.0, ()).to_dict()["tau"] == 0.5


def test_what_computes_adds_up_to_the_prediction(space, table):
    point = space.largest()
    parts = table.layers_ms(point)
    assert table.fit.network_ms + sum(parts.values()) == pytest.approx(table.predict(point))
    assert set(parts) == {unit.key for unit in table.calls.of(point)}


def test_a_wrong_table_is_found_out(space, table):
    doubled = LatencyTable(
        space, table.device, example=EXAMPLE, units=table.units, calls=table.calls,
        fit=Fit(2.0, 0.0, 0.0, 0.0), fitted=table.fitted,
    )  # fmt: skip
    assert doubled.validate(10).within_10 == 0.0


def test_a_space_too_small_to_validate_says_so():
    small = Space(lambda: nn.Sequential(OneOf(a=nn.Linear(6, 3), b=nn.Tanh())))
    built = LatencyTable.build(small, FakeDevice(additive_ms), example=EXAMPLE)
    with pytest.raises(InvalidSetting, match="all 2 of the space; leave the validation out"):
        built.validate(5)


def test_a_saved_table_predicts_the_same(space, table, tmp_path):
    path = tmp_path / "new" / "table.json"
    table.save(path)
    loaded = LatencyTable.load(path, space, FakeDevice(additive_ms), example=EXAMPLE)
    assert (loaded.units, loaded.fit, loaded.fitted) == (table.units, table.fit, table.fitted)
    assert all(loaded.predict(p) == table.predict(p) for p in list(space.all())[::100])
    assert [p.name for p in path.parent.iterdir()] == ["table.json"]
    assert json.loads(path.read_text())["device"] == table.device.fingerprint


def test_a_foreign_table_is_refused_unless_allowed(space, table, tmp_path):
    table.save(tmp_path / "t.json")
    here = Device()
    with pytest.raises(ForeignMachine, match=r"measured on .*fake.* allow_foreign=True"):
        LatencyTable.load(tmp_path / "t.json", space, here, example=EXAMPLE)
    loaded = LatencyTable.load(
        tmp_path / "t.json", space, here, example=EXAMPLE, allow_foreign=True
    )
    assert loaded.predict(space.largest()) == table.predict(space.largest())


def test_a_table_of_another_space_or_shape_is_refused(space, table, tmp_path):
    table.save(tmp_path / "t.json")
    other = Space(lambda: nn.Sequential(OneOf(a=nn.Linear(6, 3), b=nn.Tanh())))
    for given, example in ((other, EXAMPLE), (space, torch.zeros(2, 6))):
        with pytest.raises(InvalidSetting, match="another space or input shape"):
            LatencyTable.load(tmp_path / "t.json", given, table.device, example=example)


def broken(saved: dict, at: str, value: object) -> str:
    *path, last = at.split(".")
    inner = saved
    for name in path:
        inner = inner[name]
    inner[last] = value
    return json.dumps(saved)


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [("version", 1, "version"), ("fit.scale", "NaN", "fit.scale"), ("fit.more", 1.0, "fit.more"),
     ("units.x", -1.0, "units.x"), ("units", [], "units"), ("code", "print()", "code")],
)  # fmt: skip
def test_junk_in_a_file_is_refused_by_its_field(space, table, tmp_path, at, value, reason):
    path = tmp_path / "t.json"
    table.save(path)
    path.write_text(broken(json.loads(path.read_text()), at, value))
    with pytest.raises(InvalidStudy, match=rf"no latency table \({reason}: .*measure a new one"):
        LatencyTable.load(path, space, table.device, example=EXAMPLE)


def test_a_file_that_is_none_is_refused(space, table, tmp_path):
    path = tmp_path / "t.json"
    with pytest.raises(InvalidStudy, match="cannot be read"):
        LatencyTable.load(path, space, table.device, example=EXAMPLE)
    path.write_text("no json")
    with pytest.raises(InvalidStudy, match=r"no latency table \(the file: "):
        LatencyTable.load(path, space, table.device, example=EXAMPLE)


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_a_small_table_is_measured(runtime):
    small = Space(lambda: nn.Sequential(OneOf(a=nn.Linear(6, 3), b=nn.Tanh()), nn.ReLU()))
    built = LatencyTable.build(small, Device(runtime, runs=50, warmup=1), example=EXAMPLE)
    assert sorted(key.partition("(")[0] for key in built.units) == [
        "Linear",
        "ReLU",
        "ReLU",
        "Tanh",
    ]
    assert all(ms > 0 for ms in built.units.values())
    assert len(built.fitted) == 2


def test_what_cannot_be_exported_is_refused_with_a_way_out():
    class Undecided(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.cos() if x.sum() > 0 else x.sin()

    odd = Space(lambda: nn.Sequential(OneOf(a=Undecided(), b=nn.Linear(6, 6))))
    with pytest.raises(
        ExportRefused, match=r"Undecided.*instead: target=Device\('torch'\), or --set"
    ):
        LatencyTable.build(odd, Device(runs=50, warmup=1), example=EXAMPLE)
