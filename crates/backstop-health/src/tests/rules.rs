//! What is bad, and how bad.

mod backups;
mod jobs;
mod server;
