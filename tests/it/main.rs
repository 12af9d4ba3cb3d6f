//! Order Tracker from outside: the real binary, its HTTP port, its topic and its database file.

mod abuse;
mod address;
mod asyncapi;
mod cli;
mod clients;
mod completion;
mod crash;
mod double;
mod events;
mod foreign;
mod harness;
mod help;
mod journey;
mod kafka;
mod log;
mod proof;
mod raw;
mod simulate;
mod slow;
mod stack;
mod terminal;
mod tidy;
mod topic;
mod typed;
mod watch;
