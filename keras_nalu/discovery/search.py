"""The stages of the search; an exact formula ends it."""

import contextlib

from keras_nalu.discovery import nullspace, powers, tolerant
from keras_nalu.discovery.problem import TimeUpError
from keras_nalu.discovery.selection import Pool, surprise


def search(problem, whole, pools, tell=lambda stage: None):
    """Fill the pools with formulas of `problem`; stop at one that is exact on `whole`.

    `pools` holds one pool; the search adds a second one, whose rows are weighted for
    noise that grows with y, if such noise is far more likely.

    Raises:
        TimeUpError: The problem's time is up; the pools keep what was found so far.
    """
    (pool,) = pools
    tell("a line and power laws")
    if problem.scale == 0 or problem.X.shape[1] == 0:
        return
    line = powers.line(problem)
    pool.take(line)
    for form in powers.power_laws(problem):
        if whole.exact(pool.add(form)):
            return
    if any(whole.exact(candidate.form) for candidate in pool.candidates):
        return
    tell("exact rational functions")
    for form in nullspace.relations(problem):
        if whole.exact(pool.add(form, exact=True)):
            return
    tell("sparse formulas within the noise")
    pool.add(line)
    stages = tolerant.fill(problem, pool, tell)
    for started in False, True:
        if started:
            next(stages, None)
        weighted = by_size(problem, pool)
        # Before the first stage the misfit of a power law may grow with y, too.
        if weighted and (started or weighted.settled):
            pools.append(weighted)
            with contextlib.suppress(TimeUpError):
                for _ in tolerant.fill(weighted.problem, weighted, tell):
                    pass
            if weighted.nats(problem) < pool.nats(problem) and weighted.settled:
                return
            break
    for _ in stages:
        pass


def by_size(problem, pool):
    """A pool of the same formulas with weights for noise that grows with y, or None if
    such noise does not explain the residual of the best one far better."""
    if problem.by_size_of_y:
        return None
    form = pool.best.form
    weighted = problem.by_size(form(problem.X))
    if surprise(form, weighted, problem) > surprise(form, problem, problem) - 10:
        return None
    weighted.clock = problem.clock.share(2)
    other = Pool(weighted)
    for candidate in pool.candidates:
        other.add(candidate.form)
    return other
