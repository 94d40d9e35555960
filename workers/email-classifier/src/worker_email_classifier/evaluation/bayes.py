"""The yardstick: multinomial naive Bayes on word counts, add-one smoothing, nothing else."""

import re
from collections import Counter

import numpy as np
import numpy.typing as npt

from worker_email_classifier.message import Message
from worker_email_classifier.text import visible
from worker_email_classifier.training.corpus import Example

_WORD = re.compile(r"[a-z]{2,}")


class NaiveBayes:
    """Word counts of good mail and of spam."""

    def __init__(self, examples: list[Example]) -> None:
        counts: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        messages = [0, 0]
        for example in examples:
            counts[bool(example.spam)].update(_words(example.message))
            messages[bool(example.spam)] += 1
        vocabulary = sorted(set(counts[0]) | set(counts[1]))
        self._place = {word: place for place, word in enumerate(vocabulary)}
        smoothed = [np.array([count[word] + 1.0 for word in vocabulary]) for count in counts]
        good, spam = (np.log(count / count.sum()) for count in smoothed)
        self._evidence = spam - good
        self._prior = float(np.log(messages[1] / messages[0]))

    def says_spam(self, examples: list[Example]) -> npt.NDArray[np.bool_]:
        """Return the verdict on each example; words never seen are left out."""
        return np.array([self._score(example.message) > 0 for example in examples], np.bool_)

    def _score(self, message: Message) -> float:
        known = [self._place[word] for word in _words(message) if word in self._place]
        return self._prior + float(self._evidence[known].sum())


def _words(message: Message) -> list[str]:
    text = f"{message.subject or ''} {message.text or ''} {visible(message.html or '')}"
    return _WORD.findall(text.lower())
