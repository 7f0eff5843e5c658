"""The stages of the search; an exact formula ends it."""

from keras_nalu.discovery import nullspace, powers, tolerant


def search(problem, whole, pool, tell=lambda stage: None):
    """Fill the pool with formulas of `problem`; stop at one that is exact on `whole`.

    Raises:
        TimeUpError: The problem's time is up; the pool keeps what was found so far.
    """
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
    tolerant.fill(problem, pool, tell)
