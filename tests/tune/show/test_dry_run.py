"""What a search's dry run says of the recipe."""

from __future__ import annotations

from faar_ray.config.presets import RECIPES
from faar_ray.tune.show.dry_run import recipe_words
from faar_ray.tune.space.space import SearchSpace


def space(**base: object) -> SearchSpace:
    return SearchSpace.model_validate(
        {
            "version": 1,
            "name": "small",
            "base": base,
            "parameters": {"optim.lr": {"min": 1e-4, "max": 1e-3}, "pdrs.beta": {"values": [0.9, 0.98]}},
            "objectives": [{"name": "delta_m", "goal": "maximize"}],
        }
    )


def test_the_keys_that_differ_from_the_recipe_and_those_that_are_searched_are_one_line() -> None:
    assert recipe_words(space()) == ""
    assert recipe_words(space(recipe="mtlora")) == "\nrecipe mtlora: 1 key(s) differ: optim.lr searched"
    text = recipe_words(space(recipe="faar", optim={"warmup_steps": 20, "clip": 1.0}))
    assert text == (
        "\nrecipe faar: 4 key(s) differ: optim.warmup_epochs null (recipe: 20.0), "
        "optim.warmup_steps 20 (recipe: null), optim.clip 1.0 (recipe: 5.0), optim.lr searched"
    )


def test_a_recipe_is_not_searched() -> None:
    raw = space().model_dump(mode="json") | {"parameters": {"recipe": {"values": ["none", "mtlora"]}}}
    try:
        SearchSpace.model_validate(raw)
    except ValueError as error:
        assert "recipes are not searched" in str(error)
    else:
        raise AssertionError(f"took {[*RECIPES]} as values")
