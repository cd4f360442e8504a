//! `megamount completion` and `megamount man`: what is generated from the definition of the command line.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

use super::Cli;

/// `megamount completion`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    megamount completion bash >/etc/bash_completion.d/megamount\n  \
    megamount completion zsh >/usr/local/share/zsh/site-functions/_megamount\n  \
    megamount completion fish >~/.config/fish/completions/megamount.fish")]
pub(crate) struct CompletionCommand {
    /// For which shell
    shell: Shell,
}

/// `megamount man`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ManCommand {
    /// Write all pages into this directory, one file each [default: print that of megamount]
    #[arg(value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
}

/// One manual page.
#[derive(Debug)]
pub(crate) struct Page {
    /// `megamount-status.1`.
    pub(crate) file: String,
    /// In roff.
    pub(crate) text: Vec<u8>,
}

impl CompletionCommand {
    /// The script for the shell.
    pub(crate) fn script(&self) -> Vec<u8> {
        let mut script = vec![];
        clap_complete::generate(self.shell, &mut Cli::definition(), "megamount", &mut script);
        script
    }
}

impl ManCommand {
    /// The pages: that of the program first, then one for each command.
    pub(crate) fn pages() -> std::io::Result<Vec<Page>> {
        let mut program = Cli::definition();
        // Without this the pages of the commands have no names of their own.
        program.build();
        let mut pages = vec![page(program.clone())?];
        for command in program.get_subcommands().filter(|c| !c.is_hide_set()) {
            pages.push(page(command.clone())?);
            for inner in command.get_subcommands().filter(|c| !c.is_hide_set()) {
                pages.push(page(inner.clone())?);
            }
        }
        Ok(pages)
    }
}

fn page(command: clap::Command) -> std::io::Result<Page> {
    let mut text = vec![];
    let name = command.get_display_name().unwrap_or("megamount").to_owned();
    clap_mangen::Man::new(command)
        .manual("megamount")
        .render(&mut text)?;
    Ok(Page {
        file: format!("{name}.1"),
        text,
    })
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    /// The table of docs/CONFIGURATION.md.
    fn option_table() -> String {
        let program = Cli::definition();
        let mut headings: Vec<&str> = vec![];
        for option in program.get_arguments() {
            let heading = option.get_help_heading().unwrap_or_default();
            if !headings.contains(&heading) && !heading.is_empty() {
                headings.push(heading);
            }
        }
        let mut table = String::new();
        for heading in headings {
            writeln!(
                table,
                "\n### {heading}\n\n| Option | Key and environment | Meaning |\n|---|---|---|"
            )
            .unwrap();
            for option in program.get_arguments() {
                let Some(long) = option.get_long() else {
                    continue;
                };
                if option.get_help_heading() != Some(heading) {
                    continue;
                }
                let value = option.get_value_names().unwrap_or_default().join(" ");
                let is_switch = value == "BOOL";
                let short = option.get_short().map(|short| format!("`-{short}`, "));
                let key = if matches!(long, "config" | "foreground" | "password-command") {
                    "no key".to_owned()
                } else {
                    format!("`{long}`")
                };
                let name = option.get_env().unwrap().to_str().unwrap();
                let help = option.get_help().unwrap().to_string();
                writeln!(
                    table,
                    "| {}`--{long}{}` | {key}, `{name}` | {} |",
                    short.unwrap_or_default(),
                    if is_switch {
                        String::new()
                    } else {
                        format!(" {}", value.replace('|', "\\|"))
                    },
                    help.replace('|', "\\|"),
                )
                .unwrap();
            }
        }
        table
    }

    #[test]
    fn the_page_about_options_is_what_the_program_says() {
        const BEGIN: &str = "<!-- generated: begin -->\n";
        const END: &str = "\n<!-- generated: end -->";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/CONFIGURATION.md");
        let page = std::fs::read_to_string(path).unwrap();
        let (before, rest) = page.split_once(BEGIN).unwrap();
        let (_, after) = rest.split_once(END).unwrap();
        let wanted = [before, BEGIN, &option_table(), END, after].concat();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, &wanted).unwrap();
        }
        assert!(
            page == wanted,
            "run 'UPDATE_DOCS=1 cargo test -p megamount the_page_about_options' and commit {path}"
        );
    }

    #[test]
    fn every_command_has_a_page() {
        let pages = ManCommand::pages().unwrap();
        let has = |file: &str| pages.iter().any(|page| page.file == file);
        for file in [
            "megamount.1",
            "megamount-status.1",
            "megamount-config-show.1",
        ] {
            assert!(has(file), "{file}");
        }
        assert!(!has("megamount-mount.1"));
        let first = String::from_utf8(pages[0].text.clone()).unwrap();
        assert!(first.contains(".SH OPTIONS"), "{first}");
        assert!(first.contains("write\\-back"), "{first}");
    }

    #[test]
    fn every_shell_completes_the_options() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = CompletionCommand { shell }.script();
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("write-back"), "{shell}");
            assert!(script.contains("umount"), "{shell}");
        }
    }
}
