"""Label every sound in a folder: python examples/label_folder.py FOLDER [MODEL].

Prints a line for each sound, most certain first. MODEL is a run, a model directory or a packaged model ("digits", the
default). Sounds that can't be read are named at the end, and the exit code is then 1.
"""

import sys

import aumcli
from aumcli.predict import find_clips


def main(folder: str, model: str = "digits") -> int:
    classifier = aumcli.load_model(model)
    predictions = list(aumcli.predict_files(classifier, find_clips([folder]), top=1))
    labelled = [prediction for prediction in predictions if not prediction.problem]
    for prediction in sorted(labelled, key=lambda prediction: -prediction.answers[0][1]):
        label, score = prediction.answers[0]
        print(f"{score:.3f}  {label:<12}  {prediction.duration_s:7.2f} s  {prediction.path}")
    failed = [prediction for prediction in predictions if prediction.problem]
    for prediction in failed:
        print(prediction.problem, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
