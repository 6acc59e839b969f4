"""Adapter folders: loaded onto the base that they name, complete, or refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from helpers.training import QUICK, chat_rows
from safetensors.torch import load_file, save_file

from caft_utils.chats import Chats
from caft_utils.finetuning import finetune
from caft_utils.models import load

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
IDS = torch.tensor([[5, 6, 7]])


@pytest.fixture
def adapter(checkpoint, tmp_path):
    """A folder with a LoRA adapter of random weights, whose base is `checkpoint`."""
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        get_peft_model(load(checkpoint)[0], lora).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def change_config(folder, **values):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_an_adapter_folder_is_its_base_with_the_adapter(adapter, checkpoint, tokenizer):
    from peft import PeftModel

    base, _ = load(checkpoint)
    tuned, own = load(adapter)
    with torch.no_grad():
        got, plain = tuned(input_ids=IDS).logits, base(input_ids=IDS).logits
        expected = PeftModel.from_pretrained(load(checkpoint)[0], adapter)(input_ids=IDS).logits
    assert torch.equal(got, expected) and not torch.equal(got, plain)
    assert not tuned.training and own.chat_template == tokenizer.chat_template
    assert tuned.caft_id != base.caft_id
    further = finetune(tuned, Chats(own, chat_rows(4)), replace(QUICK, steps=1))
    assert further.caft_run["model"] == tuned.caft_id


def test_its_own_tokenizer_comes_first_and_its_base_may_lie_beside_it(adapter, new_tokenizer):
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    new_tokenizer(template).save_pretrained(adapter)
    change_config(adapter, base_model_name_or_path="../saved")
    assert load(adapter)[1].chat_template == template


@pytest.mark.parametrize(
    "values, error, named",
    [
        ({"base_model_name_or_path": None}, ValueError, "base_model_name_or_path"),
        ({"base_model_name_or_path": "somewhere"}, ValueError, "base_model_name_or_path"),
        ({"base_model_name_or_path": "/no/where"}, FileNotFoundError, "base_model_name_or_path"),
        ({"base_model_name_or_path": "."}, ValueError, "an adapter itself"),
        ({"peft_type": "NO_SUCH_TYPE"}, ValueError, "adapter"),
        ({"target_modules": ["q_proj", "v_proj"]}, ValueError, "v_proj"),
    ],
)
def test_configs_that_do_not_fit(adapter, values, error, named, monkeypatch):
    monkeypatch.chdir(adapter)
    change_config(adapter, **values)
    with pytest.raises(error, match=named):
        load(adapter)


@pytest.mark.parametrize(
    "change",
    [
        lambda saved: dict(list(saved.items())[1:]),
        lambda saved: {name.replace("layers.0", "layers.9"): value for name, value in saved.items()},
        lambda saved: {name: value[:, :-1].contiguous() for name, value in saved.items()},
    ],
)
def test_weights_that_do_not_fit(adapter, change):
    path = adapter / "adapter_model.safetensors"
    save_file(change(load_file(path)), path)
    with pytest.raises(ValueError, match="adapter"):
        load(adapter)


def test_pickles_and_mixed_folders_are_refused(adapter, checkpoint):
    weights = adapter / "adapter_model.safetensors"
    weights.rename(adapter / "adapter_model.bin")
    with pytest.raises(FileNotFoundError, match="safetensors"):
        load(adapter)
    (adapter / "adapter_model.bin").rename(checkpoint / weights.name)
    (adapter / "adapter_config.json").rename(checkpoint / "adapter_config.json")
    with pytest.raises(ValueError, match="both a model and an adapter"):
        load(checkpoint)


@pytest.mark.parametrize("first", ["full", "lora", "merged"])
def test_an_adapter_on_a_fine_tuned_model_is_never_put_on_the_model_before(
    first, checkpoint, tokenizer, tmp_path
):
    base, _ = load(checkpoint)
    rows = Chats(tokenizer, chat_rows(4))
    tuned = finetune(base, rows, replace(QUICK, steps=2, method="full" if first == "full" else "lora"))
    if first == "merged":
        tuned = tuned.merge_and_unload()
    further = finetune(tuned, rows, replace(QUICK, steps=1), seed=1)
    further.save_pretrained(tmp_path / "adapter")
    for folder in (tmp_path / "adapter", further.caft_run["folder"]):
        with pytest.raises(ValueError, match="was trained on a fine-tuned model. Merge"):
            load(folder)
    with torch.no_grad():
        expected = further(input_ids=IDS).logits
    further.merge_and_unload().save_pretrained(tmp_path / "merged")
    tokenizer.save_pretrained(tmp_path / "merged")
    with torch.no_grad():
        torch.testing.assert_close(load(tmp_path / "merged")[0](input_ids=IDS).logits, expected)


def test_an_adapter_on_the_model_of_a_folder_names_that_folder(checkpoint, tokenizer, tmp_path):
    tuned = finetune(load(checkpoint)[0], Chats(tokenizer, chat_rows(4)), replace(QUICK, steps=1))
    tuned.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        again, expected = (each(input_ids=IDS).logits for each in (load(tmp_path / "adapter")[0], tuned))
    assert torch.equal(again, expected)
