"""Clients as processes: they work, are killed, freeze and come back too late, and begin anew."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from odradek.chaos.client_process import BEGIN_ANEW

LIFE_S = (10.0, 60.0)
FROZEN_S = 12.0
"""Longer than sessions and transactions last: who comes back then is a zombie."""
STOP_S = 90.0
ENDS = {"kill": 6, "stop": 3, "freeze": 2}
CHECK_S = 0.2


@dataclass(slots=True)
class _Life:
    process: subprocess.Popen[bytes]
    ends: float
    wakes: float = 0.0
    """A frozen one: when it goes on."""


class Lives(threading.Thread):
    """Keeps each of these clients alive, life after life, until `finish`."""

    def __init__(self, place: Path, names: tuple[str, ...], seed: int, *, mortal: bool = True) -> None:
        super().__init__(daemon=True)
        self._place = place
        self._names = names
        self._rng = random.Random(f"{seed} lives {names[0]}")
        self._mortal = mortal
        self._stop_asked = threading.Event()
        self._current: dict[str, _Life] = {}
        self._zombies: list[_Life] = []
        self._awake: list[subprocess.Popen[bytes]] = []
        """Zombies that were told to go."""
        self._lock = threading.Lock()
        self._count = dict.fromkeys(names, 0)
        self._log = (place / "clients.log").open("ab")
        self.trouble: list[str] = []
        self.ends: dict[str, int] = dict.fromkeys(ENDS, 0)

    def run(self) -> None:
        # Inherited by every client: one that is told to stop before it listens for that hears it when it does.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        while not self._stop_asked.wait(CHECK_S):
            now = time.monotonic()
            with self._lock:
                for name in self._names:
                    self._look_after(name, now)
            for zombie in [each for each in self._zombies if each.wakes < now]:
                zombie.process.send_signal(signal.SIGCONT)
                zombie.process.terminate()
                self._zombies.remove(zombie)
                self._awake.append(zombie.process)
            self._awake = [process for process in self._awake if process.poll() is None]

    def freeze(self, name: str) -> bool:
        """SIGSTOP; `thaw` undoes it. Whether there was a process."""
        with self._lock:
            life = self._current.get(name)
            if life is None or life.process.poll() is not None:
                return False
            life.process.send_signal(signal.SIGSTOP)
            return True

    def thaw(self, name: str) -> None:
        with self._lock:
            if name in self._current:
                self._current[name].process.send_signal(signal.SIGCONT)

    def _look_after(self, name: str, now: float) -> None:
        life = self._current.get(name)
        if life is None:
            self._begin(name, now)
        elif (code := life.process.poll()) is not None:
            if code not in (0, BEGIN_ANEW):
                self.trouble.append(f"{name} ended with {code}, see clients.log")
            self._begin(name, now)
        elif self._mortal and life.ends < now:
            self._end(name, life, now)

    def _begin(self, name: str, now: float) -> None:
        self._count[name] += 1
        command = [sys.executable, "-m", "odradek.chaos.client_process"]
        process = subprocess.Popen(
            [*command, str(self._place), name, str(self._count[name])],
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,  # Ctrl-C is for whoever started the run
        )
        self._current[name] = _Life(process, now + self._rng.uniform(*LIFE_S))

    def _end(self, name: str, life: _Life, now: float) -> None:
        (how,) = self._rng.choices(list(ENDS), list(ENDS.values()))
        self.ends[how] += 1
        if how == "kill":
            life.process.kill()
            life.process.wait()
        elif how == "stop":
            life.process.terminate()
            life.ends = now + STOP_S
            return  # it is looked after when it has gone
        else:
            life.process.send_signal(signal.SIGSTOP)
            life.wakes = now + FROZEN_S
            self._zombies.append(life)
        self._begin(name, now)

    def finish(self) -> None:
        """Everybody stops in order; who does not is trouble."""
        self._stop_asked.set()
        self.join(STOP_S)
        left = [(name, life.process) for name, life in self._current.items()]
        left += [("a zombie", each.process) for each in self._zombies]
        left += [("a zombie", process) for process in self._awake]
        for _, process in left:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        deadline = time.monotonic() + STOP_S
        for name, process in left:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.trouble.append(f"{name} did not come to its end")
                process.kill()
                process.wait()
        self._log.close()

    def abandon(self) -> None:
        """Nobody is left, whatever `finish` came to."""
        self._stop_asked.set()
        if self.is_alive():
            self.join(STOP_S)
        lives = [*self._current.values(), *self._zombies]
        for process in [life.process for life in lives] + self._awake:
            if process.poll() is None:
                process.kill()
                process.wait()
