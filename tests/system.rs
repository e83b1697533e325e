//! The whole system: processes as a user runs them, and the house they are built in.

mod cli;
mod client;
mod cluster;
mod crash;
mod full;
mod harness;
mod hosts;
mod tidy;
mod tinycloud;
mod upkeep;
mod values;
mod wrong_input;
