//! Order Tracker from outside: the real binary, its HTTP port, its topic and its database file.

mod abuse;
mod asyncapi;
mod cli;
mod crash;
mod events;
mod harness;
mod help;
mod journey;
mod kafka;
mod proof;
mod raw;
mod simulate;
mod slow;
mod stack;
mod terminal;
mod tidy;
mod topic;
mod watch;
