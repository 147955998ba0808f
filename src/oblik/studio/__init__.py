"""The one door: what every surface (command line, HTTP, bot) may ask for.

In: settings and plain values. Out: nouns and paths. Each function does one thing a person would ask for;
stages are imported when they are needed, so importing this package is cheap. Knows nothing of terminals,
requests or pages.
"""

from oblik.studio.datasets import (
    BuiltDataset,
    DatasetWishes,
    build_dataset,
    decide_photos,
    edit_captions,
    export_captions,
    list_datasets,
    show_dataset,
    undo_decisions,
    verify_dataset,
)
from oblik.studio.house import face_stack_of, home_of, now, pack_of, personas_of
from oblik.studio.people import (
    active_slug,
    caution,
    check_token,
    chosen_slug,
    create_persona,
    list_personas,
    make_consent,
    portrayed,
    show_persona,
    use_persona,
)
from oblik.studio.pictures import (
    Generated,
    Measured,
    Trained,
    generate,
    measure_likeness,
    replay,
    run_demo,
    train,
)

__all__ = [
    "BuiltDataset",
    "DatasetWishes",
    "Generated",
    "Measured",
    "Trained",
    "active_slug",
    "build_dataset",
    "caution",
    "check_token",
    "chosen_slug",
    "create_persona",
    "decide_photos",
    "edit_captions",
    "export_captions",
    "face_stack_of",
    "generate",
    "home_of",
    "list_datasets",
    "list_personas",
    "make_consent",
    "measure_likeness",
    "now",
    "pack_of",
    "personas_of",
    "portrayed",
    "replay",
    "run_demo",
    "show_dataset",
    "show_persona",
    "train",
    "undo_decisions",
    "use_persona",
    "verify_dataset",
]
