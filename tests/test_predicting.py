"""`alexnet predict` and `alexnet features`, as a shell sees them."""

import csv
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet import cli
from alexnet.training import load_run
from tests.images import photograph

pytestmark = pytest.mark.usefixtures("one_thread")


def alexnet(*arguments):
    return cli.main(list(map(str, arguments)))


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        photograph(90, 60 + i, seed=i).save(folder / f"{i}.jpg")
    return folder


def test_predict_prints_a_table_json_and_csv(straight, photos, capsys):
    assert alexnet("predict", straight, photos) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["photograph", "class", "probability"] and len(rows) == 3 * 3
    assert rows[3].startswith(f"{photos}/1.jpg ") and rows[4].startswith(" ")

    assert alexnet("predict", straight, photos / "2.jpg", photos / "0.jpg", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["image"] for one in found] == [f"{photos}/2.jpg", f"{photos}/0.jpg"]
    for one in found:
        shares = [row["probability"] for row in one["top"]]
        assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1, abs=1e-5)
        assert {row["class"] for row in one["top"]} == {"cloud", "sun", "umbrella"}

    assert alexnet("predict", straight, photos, "--csv", "--views", 10) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["rank"] for row in rows] == ["1", "2", "3"] * 3
    assert rows[-1]["image"] == f"{photos}/2.jpg"


def test_a_file_that_is_no_image_does_not_keep_the_others(straight, photos, capsys):
    (photos / "1.jpg").write_text("no image")
    assert alexnet("predict", straight, photos, "--json") == 2
    out, err = capsys.readouterr()
    assert [one["image"] for one in json.loads(out)] == [f"{photos}/0.jpg", f"{photos}/2.jpg"]
    assert err == f"alexnet: {photos}/1.jpg: no image that Pillow can read\n"
    assert alexnet("predict", straight, photos / "1.jpg") == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "1.jpg: no image" in err


def test_a_picture_shows_each_photograph_with_bars(straight, photos, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the extra `figures` is not installed")
    assert alexnet("predict", straight, photos, "--picture", tmp_path / "new" / "x.png") == 0
    with Image.open(tmp_path / "new" / "x.png") as picture:
        assert picture.width > picture.height > 100
    assert alexnet("predict", straight, photos, "--picture", tmp_path / "x.nothing") == 2
    assert "x.nothing" in capsys.readouterr().err and not (tmp_path / "x.nothing").exists()


def test_features_are_what_the_layer_hands_on(splits, straight, tmp_path, capsys):
    net, augment, _ = load_run(straight)
    data = splits["train"].path.parent
    for split, layer, shape in (("train", "fc7", (36, 256)), ("test", "conv5", (6, 16, 1, 1))):
        out = tmp_path / f"{split}.npy"
        assert (
            alexnet("features", straight, out, "--data", data, "--split", split, "--layer", layer)
            == 0
        )
        found, pack = np.load(out), splits[split]
        with torch.no_grad():
            view = next(augment.views(torch.from_numpy(pack.gather(range(len(pack))))))
            expected = net.features(view, layer)
        assert found.shape == shape and found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        assert f"labels in {pack.path}/labels.npy" in capsys.readouterr().out


def test_features_that_cannot_be_are_refused(straight, packs72, packs32, tmp_path, capsys):
    for more, reason in (
        (["x.txt", "--data", packs72], "should end in .npy"),
        (["x.npy", "--data", packs72 / "val", "--split", "val"], "has no val split"),
        (["x.npy", "--data", packs32], "prepare them with --size 72"),
        (["x.npy", "--data", packs72, "--layer", "fc9"], "no layer 'fc9'"),
    ):
        out, *rest = more
        assert alexnet("features", straight, tmp_path / out, *rest) == 2
        assert reason in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
