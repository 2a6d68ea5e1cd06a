"""Compares the results of the conformance runs with the numbers that are committed."""

import json
import pathlib
import sys

failed = False
for line in pathlib.Path(".ci/conformance.txt").read_text().splitlines():
    if not line.strip() or line.startswith("#"):
        continue
    name, least = line.split()
    report = json.loads(pathlib.Path(f"target/{name}.json").read_text())
    total = report["total"]
    passed, count = total.get("pass", 0), len(report["results"])
    crashed = [result for result in report["results"] if result["status"] in ("crash", "timeout")]
    wrong = [r for r in report["results"] if r["status"] == "wrong" and "(near:" not in (r.get("detail") or "")]
    print(f"{name}: {passed} of {count} pass (at least {least}), {len(wrong)} wrong, {len(crashed)} crashed")
    for result in (crashed + wrong)[:20]:
        print("  ", result["status"], result.get("test"), (result.get("detail") or "")[:160])
    if passed > int(least):
        print(f"   more pass than before: raise the number in .ci/conformance.txt to {passed}")
    failed |= passed < int(least) or bool(crashed) or bool(wrong)
sys.exit(failed)
