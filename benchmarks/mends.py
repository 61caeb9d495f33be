"""Mended faults put back, one at a time: each must turn its own test red.

    python -m benchmarks.mends [NAME ...]

Every entry undoes a mend in a copy of the package and runs the tests that hold it. Prints a line for each: which test
caught it, or that none did. Ends with 1 if one survived.
"""

from __future__ import annotations

from benchmarks.mutations import Mutation, main

MENDS = {
    "one order of frames": Mutation(
        "vcorr/media/folder.py",
        "    parts[1::2] = [int(str(digits)) for digits in parts[1::2]]\n",
        "",
        ("tests/media/test_folder.py",),
        "order_of_their_numbers",
    ),
    "rates are clamped": Mutation(
        "vcorr/media/writer.py",
        "Fraction(min(max(fps, RATES[0]), RATES[1]))",
        "Fraction(fps)",
        ("tests/media/test_writer.py",),
        "rate_that_no_format",
    ),
    "two processes in one folder": Mutation(
        "vcorr/files.py",
        "        lock.acquire(blocking=False)",
        "        pass",
        ("tests/test_files.py",),
        "who_works or held_until",
    ),
    "top_k above the taps present": Mutation(
        "vcorr/propagation/reading.py",
        "inference.top_k and min(inference.top_k, _taps(matching, inference, query, frames.values()))",
        "inference.top_k",
        ("tests/propagation/test_run.py",),
        "beyond_the_taps",
    ),
    ".DS_Store in a prepared folder": Mutation(
        "vcorr/training/prepare/frames.py",
        "frames = frame_files(folder.iterdir())",
        "frames = [p for p in folder.iterdir() if p.name != RECORD]",
        ("tests/training/prepare/test_videos.py",),
        "file_managers",
    ),
    "complete looks first": Mutation(
        "vcorr/labels/mask_set.py",
        "return {k for k in frames if not is_whole(self._file(k), self.size)}",
        "return {k for k in frames if not self._file(k).parent.exists()}",
        ("tests/propagation/test_run.py",),
        "missing_of_a_complete or cut_short_of_a_complete",
    ),
    "index 0 is no background": Mutation(
        "vcorr/labels/mask_files.py",
        "    return black or bool(clear.any())",
        "    return False",
        ("tests/labels/test_mask_files.py",),
        "black_is_the_background or unused_index",
    ),
    "names compare without case": Mutation(
        "vcorr/labels/mask_names.py",
        'unicodedata.normalize("NFC", file.stem).casefold()',
        'unicodedata.normalize("NFC", file.stem)',
        ("tests/labels/test_mask_names.py",),
        "",
    ),
    "two readings are refused": Mutation(
        "vcorr/labels/mask_names.py",
        "    if sure:\n        return readings[1]",
        "    return readings[1]",
        ("tests/labels/test_mask_names.py",),
        "",
    ),
    "what vcorr writes it takes back as RGB": Mutation(
        "vcorr/labels/mask_ids.py",
        "        if id_ < WHITE:\n            self.colours.setdefault(int(self.table[id_]), id_)",
        "",
        ("tests/labels/test_mask_ids.py",),
        "",
    ),
    "masks are turned": Mutation(
        "vcorr/labels/mask_files.py",
        "upright = load_upright(image, path)",
        "image.load(); upright = image",
        ("tests/labels/test_mask_files.py",),
        "turned_as_frames or lies_on_its_side",
    ),
    "one scale for the video": Mutation(
        "vcorr/media/folder.py",
        "self.scale.get())\n\n    def _deep",
        "None)\n\n    def _deep",
        ("tests/media/test_levels.py",),
        "one_scale or dim_start",
    ),
    "65535 is void": Mutation(
        "vcorr/labels/mask_ids.py",
        "        if file.white not in file.objects:",
        "        if WHITE not in file.objects:",
        ("tests/labels/test_mask_files.py",),
        "white_of_16",
    ),
    "a mask beside the frames": Mutation(
        "vcorr/media/folder.py",
        "    if unlike and 0 < len(odd)",
        "    if False and 0 < len(odd)",
        ("tests/media/test_folder.py",),
        "unlike_all_others or beside_two",
    ),
    "stacks are videos": Mutation(
        "vcorr/media/pages.py",
        "return is_animated_png(path) if pages is None else len(pages.places) > 1",
        "return False",
        ("tests/media/test_stack.py",),
        "picture_k",
    ),
    "an edit list is no damage": Mutation(
        "vcorr/media/frame_table.py",
        "    decoder = Decoder(path, threads=1, edits=False)",
        "    decoder = Decoder(path, threads=1)",
        ("tests/media/test_video.py",),
        "cut_off_by_an_edit_list",
    ),
    "brackets in folder names": Mutation(
        "vcorr/media/folder.py",
        (
            "    if (folder / part).exists():\n"
            '        return [folder / part]\n    for pattern in (part, part.replace("[", "[[]")):'
        ),
        "    for pattern in (part,):",
        ("tests/media/test_folder.py",),
        "brackets",
    ),
    "a JPEG among masks": Mutation(
        "vcorr/labels/mask_names.py",
        "if other.suffix.lower() in _NO_MASKS and",
        "if False and",
        ("tests/labels/test_mask_names.py",),
        "",
    ),
    "--at outside the range": Mutation(
        "vcorr/labels/given.py",
        "        if not start <= k < end:",
        "        if False:",
        ("tests/propagation/test_run.py",),
        "request_from_python",
    ),
    "dir(vcorr)": Mutation(
        "vcorr/__init__.py",
        "    return sorted([*globals(), *__all__])",
        "    return sorted(globals())",
        ("tests/test_cli.py", "tests/test_packaging.py", "tests/test_portable.py", "tests/propagation/test_video.py"),
        "names or dir or public",
    ),
    "value in the file": Mutation(
        "vcorr/labels/mask_files.py",
        "full=top or white",
        "full=WHITE",
        ("tests/labels/test_mask_files.py",),
        "number_in_the_file",
    ),
    "edit list that shows nothing": Mutation(
        "vcorr/media/container.py",
        'if first is None and self._decoder.container.format.name.startswith("mov"):',
        "if False:",
        ("tests/media/test_video.py",),
        "shows_nothing",
    ),
    "frame 0 damaged gets a picture": Mutation(
        "vcorr/media/video.py",
        "                yield due, picture if shown is None else shown",
        "                yield due, shown",
        ("tests/propagation/test_run.py",),
        "labelled_frame_that_is_damaged",
    ),
    "damage before the start of a stretch": Mutation(
        "vcorr/media/video.py",
        "            if k < start:\n                continue",
        "            if k < start:\n                shown = None\n                continue",
        ("tests/propagation/test_run.py", "tests/media/test_video.py"),
        "damaged_film or goes_on_to_the_same_bytes",
    ),
    "progress is said": Mutation(
        "vcorr/training/run.py",
        " * stage.reads_progress",
        " * False",
        ("tests/training/test_resume.py",),
        "by_their_share",
    ),
    "killed before the manifest": Mutation(
        "vcorr/files.py",
        'bool(strangers(folder, f"{name}.part", *harmless))',
        "any(folder.iterdir())",
        ("tests/propagation/test_run.py",),
        "nobody_works_in",
    ),
    "a record half written": Mutation(
        "vcorr/files.py",
        'strangers(folder, f"{name}.part", *harmless)',
        "strangers(folder, *harmless)",
        ("tests/propagation/test_run.py",),
        "nobody_works_in",
    ),
    "full disk": Mutation(
        "vcorr/propagation/resume.py",
        (
            "        with contextlib.suppress(OutputError):  # of two failures to write, the first is told\n"
            "            _save_point(results.out, point)"
        ),
        "        _save_point(results.out, point)",
        ("tests/propagation/test_run.py",),
        "full_disk",
    ),
    "the pool ignores Ctrl-C": Mutation(
        "vcorr/evaluation/pool.py",
        "        with _interrupts_ignored():\n            futures",
        "        if True:\n            futures",
        ("tests/evaluation/test_davis.py",),
        "interrupt",
        also=("    signal.signal(signal.SIGINT, signal.SIG_IGN)\n    threading", "    threading"),
    ),
    "cores of the container": Mutation(
        "vcorr/machine.py",
        "return max(1, int(min([affinity, *_quotas(system)])))",
        "return affinity",
        ("tests/test_machine.py",),
        "",
    ),
    "jobs a core": Mutation(
        "vcorr/evaluation/pool.py",
        "    workers = min(workers or cores(), len(jobs))",
        "    workers = min(workers or os.cpu_count() or 1, len(jobs))",
        ("tests/evaluation/test_pool.py",),
    ),
    "colours of the first come first": Mutation(
        "vcorr/labels/mask_ids.py",
        "    matched = {k: space.take(file) for k, file in sorted(labels.items())}",
        "    matched = {k: space.take(file) for k, file in sorted(labels.items(), reverse=True)}",
        ("tests/labels/test_mask_ids.py", "tests/labels"),
        "first_come_first or come_first",
    ),
    "cells are fed back": Mutation(
        "vcorr/propagation/propagator.py",
        '        if self.model.inference.feedback == "hard":',
        "        if True:",
        ("tests/propagation/test_propagator.py",),
        "still_scene",
    ),
    "stages without steps": Mutation(
        "vcorr/training/run.py",
        "            if raised.get(stage.name, stage.schedule.steps):\n",
        "            if True:\n",
        ("tests/training/test_resume.py", "tests/recipes/test_resume.py"),
        "second_stage_may or skips or without_steps or steps_0",
    ),
    "one reading of a mask": Mutation(
        "vcorr/evaluation/sequences.py",
        "    return {first: davis_layout.first_ids(sequence, size)}",
        "    from vcorr.labels.masks import read_mask\n    return {first: read_mask(sequence.annotations[0]).ids}",
        ("tests/test_cli.py",),
        "one_reading_of_a_mask",
    ),
    "pauses of an edit list": Mutation(
        "vcorr/media/container.py", "if table and edited:", "if False:", ("tests/media/test_video.py",), "pause_in"
    ),
    "digits of any script": Mutation(
        "vcorr/media/folder.py",
        'list(re.split(r"(\\d+)", str(path)',
        'list(re.split("([0-9]+)", str(path)',
        ("tests/media/test_folder.py",),
        "any_script",
    ),
}

if __name__ == "__main__":
    main(MENDS, __doc__)
