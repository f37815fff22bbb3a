//! The part of the demo that lends to shells, each with a real prompt: `opvars`, `unopvars`, a loan that ends after its
//! time, and one that ends with the vault.

use super::terminal::Shell;
use super::{Demo, wait_until};
use crate::process::find;
use anyhow::Result;
use std::fs;

/// A set whose loans to shells are short.
pub(super) const DEPLOY: &str =
    "[sets.deploy.env]\nDEPLOY_TOKEN = \"local://pypi/token\"\n[sets.deploy.shell]\ntime = \"3s\"\n";

/// Name, start-up file, and what is in it: a prompt with the indicator, and the line of docs/shell.md.
const SHELLS: [(&str, &str, &str); 3] = [
    (
        "bash",
        "home/.bashrc",
        "PS1='${KEYLOAN_PROMPT:+[$KEYLOAN_PROMPT] }bash> '\neval \"$(keyloan shell bash)\"\n",
    ),
    (
        "zsh",
        "home/.zshrc",
        "setopt prompt_subst\nunsetopt prompt_sp\nPS1='${KEYLOAN_PROMPT:+[$KEYLOAN_PROMPT] }zsh> '\n\
         eval \"$(keyloan shell zsh)\"\n",
    ),
    (
        "fish",
        "config/fish/config.fish",
        "set -g fish_greeting\nfunction fish_prompt\n    test -n \"$KEYLOAN_PROMPT\"; and echo -n \"[$KEYLOAN_PROMPT] \"\n    \
         echo -n 'fish> '\nend\nkeyloan shell fish | source\n",
    ),
];

impl Demo {
    pub(super) fn lend_to_shells(&self) -> Result<()> {
        let mut holding = Vec::new();
        for (name, file, text) in SHELLS {
            if find(name).is_none() {
                println!("\n{name} is not installed here, so it is not shown");
                continue;
            }
            let at = self.home.root().join(file);
            if let Some(directory) = at.parent() {
                fs::create_dir_all(directory)?;
            }
            fs::write(at, text)?;
            let mut shell = Shell::open(&self.home, name)?;
            self.in_and_out(&mut shell)?;
            if self.attended && !holding.is_empty() {
                println!("\n(The rest goes in {name} as in the first; it would ask you twice more.)");
                continue;
            }
            self.for_a_while(&mut shell, holding.len() + 1)?;
            holding.push(shell);
        }
        let lock = self.keyloan("lock");
        Self::step("lock the vault, in another terminal", lock, None)?.ended_with(0)?;
        for shell in &mut holding {
            println!("\n# at the next prompt of {}", shell.name);
            shell.run("", false, "keyloan: removed: TWINE_PASSWORD TWINE_USERNAME (the vault was locked)")?;
        }
        self.unlock()
    }

    fn in_and_out(&self, shell: &mut Shell) -> Result<()> {
        println!("\n# lend it to {}, whose prompt then shows a star a variable", shell.name);
        shell.run("opvars", self.attended, "set: TWINE_PASSWORD TWINE_USERNAME")?;
        shell.run("printenv TWINE_PASSWORD", false, &self.home.token)?;
        shell.run("unopvars", false, "removed: TWINE_PASSWORD TWINE_USERNAME")?;
        shell.run("printenv TWINE_PASSWORD || echo nothing there", false, "nothing there")
    }

    /// One of two sets ends by itself; then so many loans stay, with those of the shells before.
    fn for_a_while(&self, shell: &mut Shell, stay: usize) -> Result<()> {
        println!("\n# two sets, one of them for 3 seconds");
        shell.run("opvars", self.attended, "set: TWINE_PASSWORD TWINE_USERNAME")?;
        shell.run("opvars deploy", self.attended, "still set: TWINE_PASSWORD TWINE_USERNAME")?;
        wait_until("the loan ended after its time", || Ok(self.status()?["loans"] == stay))?;
        println!("\n# at the next prompt of {}, 3 seconds later", shell.name);
        shell.run("", false, "keyloan: removed: DEPLOY_TOKEN (its time is up)")
    }
}
