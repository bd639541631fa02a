"""The rows of Table 1 that are not CNNs: their parts by independent formulas, the whole on small
pictographs."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.decomposition import sparse_encode
from sklearn.linear_model import LogisticRegression

from alexnet.baselines import fisher_vectors, pipeline, sparse_coding
from alexnet.data import pictographs
from alexnet.data.pack import Pack, open_splits
from alexnet.data.pack_writer import PackWriter
from alexnet.data.prepare import prepare
from alexnet.errors import InputError
from alexnet.evaluation import Errors

ROWS = {
    "sparse coding": (sparse_coding.sparse_coding_errors, {"atoms": 32, "patches": 4000}),
    "SIFT + FVs": (
        fisher_vectors.fisher_vector_errors,
        {"components": 24, "gaussians": 8, "descriptors": 8000},
    ),
}


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """Pictographs of 4 classes at 64 pixels: 160 + 40 + 40 images."""
    folder = tmp_path_factory.mktemp("pictographs")
    pictographs.write(folder / "images", classes=4, train=40, val=10, test=10, size=64, workers=1)
    return open_splits(prepare(folder / "images", folder / "packs", size=64, workers=1))


def noise(folder, count, size, seed=0):
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    writer = PackWriter(folder, size)
    writer.append(
        rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8),
        (np.arange(count) % 3).tolist(),
    )
    writer.finish(["a", "b", "c"], ["a", "b", "c"])
    return Pack.open(folder)


def learned(row, splits, seed=0, **more):
    """An encoder from at most 160 images; the same only once."""
    module, settings = (
        {"sparse coding": sparse_coding, "SIFT + FVs": fisher_vectors}[row],
        ROWS[row][1] | more,
    )
    key = (row, splits["train"].digest, seed, *sorted(more.items()))
    if key not in LEARNED:
        LEARNED[key] = module.learn(
            pipeline.sample(splits["train"], 160), module.Settings(**settings), seed
        )
    return LEARNED[key]


LEARNED = {}


# --- the rows, whole ------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=ROWS)
def row_and_errors(request, splits):
    """A row, and its errors by an undisturbed run."""
    errors, settings = ROWS[request.param]
    return request.param, errors(splits, seed=1, **settings)


def test_a_row_beats_chance(row_and_errors):
    _, result = row_and_errors
    assert json.loads(json.dumps(result)) == result
    # Chance errs in 0.75, and among five of four classes never.
    assert result["top1"] < 0.5 and result["top5"] == 0 and result["nll"] > 0
    assert (result["split"], result["test_images"], result["train_images"]) == ("test", 40, 160)
    assert result["chosen_on"] == "val"
    tried = {float(cost): error for cost, error in result["top1_by_cost"].items()}
    assert len(tried) >= 3 and result["cost"] == min(sorted(tried), key=tried.get)


def test_an_interrupted_row_goes_on_where_it_was_and_follows_from_its_seed(
    row_and_errors, splits, tmp_path, monkeypatch
):
    row, whole = row_and_errors
    errors, settings = ROWS[row]
    folder, encode, seen = tmp_path / "work", pipeline._encode, []

    def interrupted(encoder, pack, indices):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(indices)
        return encode(encoder, pack, indices)

    monkeypatch.setattr(pipeline, "_encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        errors(splits, seed=1, folder=folder, **settings)
    assert len(seen) == 2
    with np.load(folder / "encoder.npz") as one:
        other = learned(row, splits, seed=0).arrays()
        assert not any(np.array_equal(one[name], other[name]) for name in other)
    with (folder / "train.f32").open("ab") as file:
        file.write(b"torn in the middle of a write")

    again = []
    monkeypatch.setattr(pipeline, "_encode", lambda *task: again.append(task[2]) or encode(*task))
    module = sys.modules[errors.__module__]
    monkeypatch.setattr(module, "learn", lambda *_, **__: pytest.fail("learned twice"))
    assert errors(splits, seed=1, folder=folder, **settings) == whole
    assert [len(task) for task in seen + again] == [64, 64, 32, 40, 40]
    assert not folder.exists()


@pytest.mark.parametrize("row", ROWS)
def test_samples_are_bounded_and_without_a_split_to_spare_a_fifth_of_train_chooses(row, splits):
    errors, settings = ROWS[row]
    two = {"train": splits["train"], "val": splits["val"]}
    result = errors(two, train_images=120, test_images=30, **settings)
    assert (result["split"], result["test_images"], result["train_images"]) == ("val", 30, 120)
    assert result["chosen_on"] == "every fifth training image" and result["top1"] < 0.6


def test_work_in_processes_gives_the_same_features(splits, tmp_path, monkeypatch):
    row = "SIFT + FVs"
    encoder, one = learned(row, splits), pipeline.sample(splits["train"], 100)
    alone = pipeline.features(row, {"train": one}, encoder, tmp_path)["train"].copy()
    (tmp_path / "train.f32").unlink()
    monkeypatch.setattr(pipeline, "cores", lambda: 2)
    monkeypatch.setattr(pipeline, "SPREAD", 50)
    assert np.array_equal(pipeline.features(row, {"train": one}, encoder, tmp_path)["train"], alone)


@pytest.mark.parametrize("row", ROWS)
def test_what_cannot_be_worked_on_is_named(row, tmp_path):
    errors, settings = ROWS[row]
    small = {"train": noise(tmp_path / "train", 6, 12), "test": noise(tmp_path / "test", 3, 12)}
    with pytest.raises(
        InputError,
        match=f"{row.replace('+', '.')}: images of 12 pixels are too small for .*: 1[47] at least",
    ):
        errors(small, **settings)
    with pytest.raises(
        InputError,
        match="needs train and test or val; there is train: prepare a source with splits",
    ):
        errors({"train": noise(tmp_path / "alone", 6, 32)}, **settings)


def test_without_opencv_the_command_that_installs_it_is_told(splits, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(
        InputError, match=r"SIFT \+ FVs need OpenCV: pip install opencv-python-headless"
    ):
        fisher_vectors.fisher_vector_errors(splits)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("size", [32, 250])
def test_other_sizes_work_and_rows_have_a_root_mean_square_of_1(row, size, tmp_path):
    pack = noise(tmp_path / "pack", 6, size)
    fewer = {"sparse coding": {"patches": 2000}, "SIFT + FVs": {"descriptors": 2000}}
    rows = learned(row, {"train": pack}, **fewer[row])(pack.gather([0, 3]))
    assert rows.dtype == np.float32 and len(rows) == 2 and not np.array_equal(*rows)
    np.testing.assert_allclose((rows.astype(float) ** 2).mean(1), 1, rtol=1e-5)


@pytest.mark.parametrize("row", ROWS)
def test_an_image_of_one_gray_is_no_trouble(row, splits):
    flat = np.full((1, 64, 64, 3), 127, np.uint8)
    assert np.isfinite(learned(row, splits)(flat)).all()


# --- sparse coding --------------------------------------------------------------------------------


def soft_threshold(correlations, threshold):
    """What a code is; features take the magnitudes alone."""
    return np.sign(correlations) * np.maximum(np.abs(correlations) - threshold, 0)


def test_soft_thresholds_solve_the_lasso_of_an_orthonormal_dictionary_and_rebuild_the_signal():
    rng = np.random.default_rng(0)
    dictionary = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    signals = rng.normal(size=(20, 16)) * 2
    codes = soft_threshold(signals @ dictionary.T, 0.7)
    lasso = sparse_encode(signals, dictionary, algorithm="lasso_cd", alpha=0.7, max_iter=10_000)
    np.testing.assert_allclose(codes, lasso, atol=1e-6)
    assert 0.1 < (codes == 0).mean() < 0.9
    assert np.abs(codes @ dictionary - signals).max() < np.sqrt(16) * 0.7
    np.testing.assert_allclose(
        soft_threshold(signals @ dictionary.T, 0.0) @ dictionary, signals, atol=1e-12
    )


def test_the_dictionary_rebuilds_patches_it_has_not_seen_with_few_atoms(splits):
    encoder = learned("sparse coding", splits, atoms=128, patches=10_000)
    np.testing.assert_allclose(np.linalg.norm(encoder.dictionary, axis=1), 1, rtol=1e-5)
    patches = []
    for image in splits["test"].gather(range(40)):
        patches.append(sparse_coding.patches_of(sparse_coding.pyramid(image, False, 1)[0], 8, 8))
    white = (sparse_coding.normalized(np.concatenate(patches)) - encoder.mean) @ encoder.whitening

    def unexplained(dictionary):
        codes = sparse_encode(white, dictionary, algorithm="omp", n_nonzero_coefs=8)
        assert ((codes != 0).sum(1) <= 8).all()
        return float(((white - codes @ dictionary) ** 2).sum() / (white**2).sum())

    rng = np.random.default_rng(0)
    shuffled = rng.permuted(encoder.dictionary, axis=1)  # the same numbers at other pixels
    assert unexplained(encoder.dictionary.astype(float)) < 0.8 * unexplained(shuffled.astype(float))


def test_features_are_the_maxima_of_thresholded_codes_over_each_cell(splits):
    encoder = learned("sparse coding", splits, levels=1, threshold=0.5)
    image = splits["test"].gather([7])[0]
    side = encoder.settings.grids(64)[0]
    gray = image @ sparse_coding.LUMA
    codes = np.zeros((side, side, 32))
    for row in range(side):
        for column in range(side):
            patch = gray[2 * row : 2 * row + 8, 2 * column : 2 * column + 8].ravel().astype(float)
            patch = (patch - patch.mean()) / np.sqrt(patch.var() + 10)
            white = (patch - encoder.mean) @ encoder.whitening
            codes[row, column] = np.abs(soft_threshold(encoder.dictionary @ white, 0.5))
    edges = {1: [0, 29], 2: [0, 14, 29], 4: [0, 7, 14, 22, 29]}
    cells = []
    for each, at in edges.items():
        for i in range(each):
            cells += [codes[at[i] : at[i + 1], at[j] : at[j + 1]].max((0, 1)) for j in range(each)]
    expected = np.concatenate(cells)
    np.testing.assert_allclose(
        encoder(image[None])[0], expected / np.sqrt((expected**2).mean()), rtol=1e-4, atol=1e-4
    )


def test_levels_halve_the_image_and_small_ones_are_left_out():
    image = np.arange(5 * 5 * 3, dtype=np.uint8).reshape(5, 5, 3)
    whole, half = sparse_coding.pyramid(image, True, 2)
    assert whole.shape == (5, 5, 3) and half.shape == (2, 2, 3)
    np.testing.assert_allclose(half[1, 0], image[2:4, 0:2].reshape(4, 3).mean(0))
    assert sparse_coding.pyramid(image, False, 1)[0].shape == (5, 5, 1)
    settings = sparse_coding.Settings(levels=3)
    assert settings.grids(64) == [29, 13, 5] and settings.grids(32) == [13, 5]


# --- Fisher vectors -------------------------------------------------------------------------------


def test_a_fisher_vector_is_the_gradient_of_the_log_likelihood_in_units_of_its_information(splits):
    encoder = learned("SIFT + FVs", splits)
    image = splits["test"].gather([3])
    x = torch.from_numpy(
        (fisher_vectors.sift(image, encoder.settings)[0] - encoder.mean) @ encoder.basis
    ).double()
    weights, means, variances = (
        torch.from_numpy(getattr(encoder, name)).double()
        for name in ("weights", "means", "variances")
    )
    logits, mu, sigma = (
        weights.log().requires_grad_(),
        means.clone().requires_grad_(),
        variances.sqrt().requires_grad_(),
    )
    density = torch.distributions.Normal(mu, sigma).log_prob(x[:, None]).sum(2)  # (keypoints, K)
    (logits.log_softmax(0) + density).logsumexp(1).mean().backward()
    root = weights.sqrt()[:, None]
    # Of the deviations scikit-image gives the gradient's opposite.
    parts = (
        logits.grad / root[:, 0],
        mu.grad * variances.sqrt() / root,
        -sigma.grad * variances.sqrt() / (root * 2**0.5),
    )
    expected = torch.cat([part.ravel() for part in parts])
    expected = expected.sign() * expected.abs().sqrt()
    expected = expected / (expected**2).mean().sqrt()
    np.testing.assert_allclose(encoder(image)[0], expected.numpy(), atol=2e-3)


def test_descriptors_lie_within_the_image_at_scales_half_an_octave_apart():
    settings = fisher_vectors.Settings()
    grid = np.array(settings.grid(72))
    assert len(grid) == 14**2 + 13**2 + 10**2 + 7**2
    sides = 1.5 * grid[:, 2]
    assert np.unique(sides.round(4)).tolist() == [4, 5.6569, 8, 11.3137]
    assert (grid[:, :2].min(1) >= 2 * sides - 1e-6).all() and (
        grid[:, :2].max(1) <= 71 - 2 * sides + 1e-6
    ).all()
    np.testing.assert_allclose(np.sort(grid[:, 0]), np.sort(71 - grid[:, 0]), atol=1e-6)  # centered
    assert (
        np.unique([side for _, _, side, _ in settings.grid(32)]).size == 2
    )  # the others do not fit


def test_descriptors_see_gradients_alone_and_an_octave_up_what_is_twice_as_large():
    settings = fisher_vectors.Settings(step=8)
    coarse = np.random.default_rng(0).integers(0, 256, (9, 9), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC))
    small = np.repeat(picture[None, :, :, None], 3, axis=3)
    found = fisher_vectors.sift(small, settings)
    np.testing.assert_allclose((found**2).sum(2), 1, rtol=1e-5)
    fainter = fisher_vectors.sift(small // 2 + 60, settings)
    assert ((found * fainter).sum(2) > 0.98).all()
    assert not fisher_vectors.sift(np.full((1, 64, 64, 3), 9, np.uint8), settings).any()

    large = np.asarray(Image.fromarray(picture).resize((128, 128), Image.Resampling.BICUBIC))
    over = fisher_vectors.sift(
        np.repeat(large[None, :, :, None], 3, axis=3), fisher_vectors.Settings(step=16)
    )[0]
    above = {
        (x, y): row
        for row, (x, y, _, octave) in zip(
            over, fisher_vectors.Settings(step=16).grid(128), strict=True
        )
        if octave == 1
    }
    below = {
        (x, y): row
        for row, (x, y, _, octave) in zip(found[0], settings.grid(64), strict=True)
        if octave == 0
    }
    alike = [
        row @ other
        for at, row in below.items()
        for to, other in above.items()
        if np.abs(2 * np.array(at) + 0.5 - to).max() < 0.1
    ]
    assert len(alike) == len(below) == 36 and min(alike) > 0.95


# --- what they share ------------------------------------------------------------------------------


class Count:
    """An encoder that gives an image's sum and its square."""

    def __call__(self, images):
        total = images.sum((1, 2, 3)).astype(np.float32)
        return np.stack([total, total**2], axis=1)


def test_features_come_in_order_whatever_the_chunks_and_the_time_is_told_first(
    tmp_path, capfd, monkeypatch
):
    monkeypatch.setattr(pipeline, "cores", lambda: 1)
    pack = noise(tmp_path / "pack", 1203, 4)
    samples = {"train": pipeline.sample(pack, 5000), "test": pipeline.sample(pack, 7)}
    found = pipeline.features("a row", samples, Count(), tmp_path)
    assert "a row: 1,210 images, about 1 second for their features" in capfd.readouterr().err
    np.testing.assert_array_equal(found["train"], Count()(pack.gather(range(1203))))
    np.testing.assert_array_equal(
        found["test"], Count()(pack.gather([0, 200, 400, 601, 801, 1001, 1202]))
    )
    pipeline.features("a row", samples, Count(), tmp_path)
    assert capfd.readouterr().err == ""  # all there


def test_a_cost_is_chosen_by_the_other_images_alone():
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    x = np.eye(3)[labels] + rng.normal(size=(300, 3)) * 0.3
    noisy = np.concatenate([x, rng.normal(size=(300, 200)) * 3], axis=1).astype(np.float32)
    chosen = pipeline.choose(noisy[:150], labels[:150], noisy[150:], labels[150:])
    assert (
        chosen.top1[chosen.cost] == min(chosen.top1.values()) and len(set(chosen.top1.values())) > 1
    )
    plain = np.eye(3)[labels]
    assert pipeline.choose(plain, labels, plain, labels).cost == 10.0**-7  # of equals the smallest


@pytest.mark.parametrize("best", [1e-7, 1e-4, 1e-2, 10.0, 1e3])
def test_the_search_for_a_cost_goes_on_until_the_best_lies_between_others(best, monkeypatch):
    fitted = []
    monkeypatch.setattr(pipeline, "_fit", lambda x, y, cost: fitted.append(cost) or cost)
    monkeypatch.setattr(
        pipeline,
        "measure",
        lambda cost, x, y, classes: Errors(abs(np.log10(cost / best)) / 10, 0, 0, 1),
    )
    chosen = pipeline.choose(np.ones((3, 1)), np.arange(3), np.ones((3, 1)), np.arange(3))
    assert chosen.cost == chosen.classifier == best and len(fitted) == len(set(fitted)) == len(
        chosen.top1
    )
    assert ({min(fitted), max(fitted)} & {best}) == (
        {1e-7, 1e3} & {best}
    )  # at an end only where the search may go no further


@pytest.mark.parametrize("classes", [5, 500])
def test_many_classes_do_not_end_a_fit_before_it_has_begun(classes):
    """The gradient of so many classes is small from the start: a fixed tolerance takes it for
    convergence."""
    rng = np.random.default_rng(0)
    center = pipeline.unit(rng.normal(size=(classes, 64)))
    labels = np.repeat(np.arange(classes), 4)
    x = pipeline.unit(center[labels] + 0.2 * rng.normal(size=(len(labels), 64)))
    exact = LogisticRegression(C=1e-2, max_iter=1000, tol=1e-10).fit(x, labels).coef_
    assert np.linalg.norm(pipeline._fit(x, labels, 1e-2).coef_ - exact) < 0.005 * np.linalg.norm(
        exact
    )


def test_a_class_that_was_never_seen_is_an_error():
    x = np.array([[1.0, 0], [0, 1.0]] * 10, np.float32)
    classifier = pipeline._fit(x, np.array([0, 2] * 10), 10.0)
    found = pipeline.measure(
        classifier, np.array([[1.0, 0], [0, 1], [1, 0], [0, 1]]), np.array([0, 2, 1, 3]), 8
    )
    assert (found.top1, found.count) == (0.5, 4) and found.nll > 10
