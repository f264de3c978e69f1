//! Twin models, their state in three tenses, scenarios and simulation runs.
