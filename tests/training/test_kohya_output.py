"""What sd-scripts prints, and what is read out of it."""

from __future__ import annotations

import math

from oblik.training.backends.kohya_output import Output


def read(*lines: str) -> Output:
    output = Output()
    for line in lines:
        output.read(line)
    return output


def test_a_bar_is_steps_a_loss_and_the_time_that_is_left() -> None:
    output = read("steps:   0%|          | 0/1000 [00:00<?, ?it/s]")
    assert (output.done, output.loss) == (0, None)
    assert output.read("steps:  12%|█▏        | 120/1000 [01:00<07:20,  2.00it/s, avr_loss=0.123]") == 120
    assert output.read("steps:  12%|█▏        | 120/1000 [01:00<07:20,  2.00it/s, avr_loss=0.123]") == 0
    assert output.read("steps:  12%|█▏        | 121/1000 [1:01:00<2:07:20, 1.50s/it, avr_loss=9.1e-05]") == 1
    assert output.note == "loss 0.000, 1.50s/it, 2:07:20 left"
    assert [(point.step, point.train) for point in output.losses] == [(120, 0.123), (121, 9.1e-05)]


def test_other_bars_are_not_steps() -> None:
    output = read(
        "read caption: 100%|██████████| 4/4 [00:00<00:00, 8004.4it/s]", "100%|███| 4/4 [00:00<00:00, 1it/s]"
    )
    assert (output.done, output.losses) == (0, [])


def test_held_out_losses_belong_to_the_step_before_them() -> None:
    """The last of the running means counts; the bar below the other one goes back up by an escape."""
    output = read(
        "steps:  50%|█████     | 2/4 [00:52<00:52, 26.3s/it, avr_loss=0.2]",
        "validation steps:  50%|█  | 1/2 [00:14<00:14, 14.8s/it, val_avg_loss=0.9, timestep=200]\x1b[A",
        "\x1b[Avalidation steps: 100%|██| 2/2 [00:29<00:00, 14.8s/it, val_avg_loss=0.4, timestep=400]\x1b[A",
        "steps:  75%|███████▌  | 3/4 [02:52<00:52, 26.3s/it, avr_loss=0.1]",
    )
    assert output.held_out == {2: 0.4}
    assert output.note.startswith("loss 0.100, held out 0.400, ")
    assert [point.validation for point in output.losses] == [0.4, None]


def test_a_loss_that_is_no_number() -> None:
    loss = read("steps:  50%|█████     | 2/4 [00:52<00:52, 26.3s/it, avr_loss=nan]").loss
    assert loss is not None
    assert math.isnan(loss)


def test_last_words_are_the_scripts_own() -> None:
    script = ["Traceback (most recent call last):", '  File "train_network.py"', "ValueError: no"]
    accelerates = [
        "Traceback (most recent call last):",
        "subprocess.CalledProcessError: Command '[...]' returned 1",
    ]
    assert read("loading", *script, *accelerates).last_words() == ["loading", *script]
    assert read(*script).last_words() == script
    assert len(read(*(str(n) for n in range(500))).last_words()) == 15
