//! megamount mounts a Mega (mega.nz) account as a directory.
//!
//! This crate is the program around the file system: the command line (`cli`), the configuration
//! (`config`), starting and stopping (`mount`, `launch`, `notify`, `logging`), the commands that talk
//! to a mount that is up (`commands`, `control`, `display`), setting up remotes (`setup`), and the adaptor that puts mega-vfs behind the kernel's FUSE interface (`adaptor`). It is the only crate that names
//! fuser, clap or daemonize, and it decides nothing about what a file operation means.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

mod adaptor;
mod bwlimit;
mod cli;
mod commands;
mod config;
mod control;
mod demo;
mod display;
mod doctor;
mod env_vars;
mod exit;
mod failure;
mod launch;
mod logging;
mod metrics;
mod mount;
mod mountpoint;
mod notify;
mod password;
mod paths;
mod quantity;
mod setup;
mod terminal;

use std::process::ExitCode;

use cli::{Cli, Command};
use commands::Columns;

/// Gives memory back that a first load or a large listing needed. The C library's keeps it, once for each
/// thread: after `find` over a million nodes that was half of the memory. Its settings are in
/// `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let is_helper = std::env::args_os()
        .next()
        .is_some_and(|program| cli::is_helper(&program));
    let code = answer();
    exit::status(if is_helper {
        exit::of_mount(code)
    } else {
        code
    })
}

fn answer() -> u8 {
    let read = match Cli::read(std::env::args_os()) {
        Ok(read) => read,
        Err(error) => {
            // Nothing is left to do when the terminal does not take the message.
            let _ = error.print();
            return if error.use_stderr() {
                exit::USAGE
            } else {
                exit::DONE
            };
        }
    };
    if let Some(warning) = read.warning {
        launch::complain(&warning);
    }
    match read.command {
        Some(command) => run(&command),
        None if read.is_fake => exit::DONE,
        None => exit::USAGE,
    }
}

fn run(command: &Command) -> u8 {
    match command {
        Command::Mount(command) => mount::run(command),
        Command::Status(command) => commands::code(commands::status(command)),
        Command::Flush(command) => commands::code(commands::flush(command)),
        Command::Bwlimit(command) => commands::code(commands::bwlimit(command)),
        Command::Umount(command) => commands::code(commands::unmount(command)),
        Command::Retry(command) => commands::code(commands::retry(command)),
        Command::Discard(command) => commands::code(commands::discard(command)),
        Command::Export(command) => commands::code(commands::export(command)),
        Command::Config(command) => commands::code(setup::run(command)),
        Command::Verify(command) => commands::code(commands::verify(command)),
        Command::Doctor(command) => commands::code(doctor::run(command)),
        Command::Completion(command) => commands::code(commands::completion(command)),
        Command::Man(command) => commands::code(commands::man(command)),
        Command::Login(command) => commands::code(mount::login(command)),
        Command::Logout(command) => commands::code(mount::logout(command)),
        Command::Whoami(command) => commands::code(mount::whoami(command)),
        Command::Ls(command) => commands::code(commands::list(command, Columns::Size)),
        Command::Lsl(command) => commands::code(commands::list(command, Columns::SizeAndTime)),
        Command::Lsd(command) => commands::code(commands::list_folders(command)),
        Command::Lsjson(command) => commands::code(commands::list_json(command)),
        Command::Tree(command) => commands::code(commands::tree(command)),
        Command::About(command) => commands::code(commands::about(command)),
        Command::Cat(command) => commands::code(commands::cat(command)),
        Command::Copy(command) => commands::code(commands::copy(command)),
        Command::Dedupe(command) => commands::code(commands::dedupe(command)),
        Command::Mkdir(command) => commands::code(commands::make(command)),
        Command::Mv(command) => commands::code(commands::rename(command)),
        Command::Rm(command) => commands::code(commands::remove(command)),
        Command::Link(command) => commands::code(commands::public_link(command)),
        Command::Trash(command) => commands::code(commands::trash(command)),
        Command::Versions(command) => commands::code(commands::versions(command)),
        Command::Cleanup(command) => commands::code(commands::cleanup(command)),
    }
}
