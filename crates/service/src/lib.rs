//! The doors: HTTP and the PostgreSQL wire protocol over one SQL session.
