//! The phrase that genuine questions show: kept sealed, so that while the vault is locked nobody knows it, and given to
//! the places of the last unlock alone.

use super::{Broker, Client, Refusal};
use crate::approval::phrase::{FORM, parsed};
use crate::approval::pin;
use crate::approval::question::Question;
use crate::approval::terminal::{Screen, Typed};
use crate::approval::{DEADLINE, No};
use crate::audit::event::Event;
use crate::audit::sink::Durable;
use crate::clock::{self, timeout};
use crate::vault::local::{self, identity};
use keyloan_protocol::control::response::Reply;
use keyloan_protocol::names::escaped;
use keyloan_protocol::secret::SecretBytes;
use std::rc::Rc;

/// Everybody who looks over a shoulder reads it.
const SECRET: Refusal =
    Refusal::Input("the phrase is shown on the screen, so it is neither the passphrase nor the PIN");

const FIRST: &str = "keyloan: a phrase for keyloan's own questions to show (Enter for none): ";
const NEW: &str =
    "keyloan: the new phrase (Enter keeps things as they are; to have none: keyloan phrase --remove): ";

impl Broker {
    /// `None` while the vault is locked, and where none was chosen.
    pub(super) fn phrase(&self) -> Option<Rc<SecretBytes>> {
        let sealed = self.vault.borrow().sealed(local::PHRASE).ok().flatten();
        sealed.filter(|phrase| !phrase.is_empty()).map(Rc::new)
    }

    /// A phrase for a vault that is being made: handed over, or typed where the rest was.
    pub(super) async fn first_phrase(
        &self,
        client: &Client,
        given: Option<SecretBytes>,
        is_typed: bool,
        secrets: [&SecretBytes; 2],
    ) -> Result<Option<SecretBytes>, Refusal> {
        let phrase = match given {
            Some(given) => Some(parsed(&given).ok_or(Refusal::Input(FORM))?),
            None if is_typed => self.typed_phrase(client, FIRST).await?,
            None => None,
        };
        let is_one = |phrase: &SecretBytes| secrets.iter().any(|secret| secret.expose() == phrase.expose());
        if phrase.as_ref().is_some_and(is_one) { Err(SECRET) } else { Ok(phrase) }
    }

    /// Changes or removes it.
    pub(crate) async fn change_phrase(
        &self,
        client: &Client,
        passphrase: Option<SecretBytes>,
        given: Option<SecretBytes>,
        removes: bool,
    ) -> Result<Reply, Refusal> {
        let given = given.map(|given| parsed(&given).ok_or(Refusal::Input(FORM))).transpose()?;
        self.open_vault_for(client, "change the phrase").await?;
        let verb = if removes { "remove" } else { "change" };
        let question = Question::new(&format!("{verb} the phrase that keyloan's own questions show"));
        self.prove_passphrase(client, passphrase, &question).await?;
        let phrase = match given {
            _ if removes => None,
            None => Some(self.typed_phrase(client, NEW).await?.ok_or(No::Declined)?),
            given => given,
        };
        if let Some(phrase) = &phrase
            && self.is_secret(phrase).await?
        {
            return Err(SECRET);
        }
        self.vault.borrow_mut().check_writable()?;
        self.record(&Event::PhraseChanged { by: self.who(&client.requester) }, Durable::Now)?;
        let kept = phrase.unwrap_or_else(|| SecretBytes::copy_of(b""));
        self.vault.borrow_mut().seal(local::PHRASE, kept, &clock::now())?;
        Ok(Reply::done(format!("the phrase is {verb}d")))
    }

    async fn is_secret(&self, phrase: &SecretBytes) -> Result<bool, Refusal> {
        let wrapped = self.vault.borrow_mut().wrapped_identity()?;
        let verifier = self.vault.borrow().sealed(local::PIN)?;
        let phrase = SecretBytes::copy_of(phrase.expose());
        self.derive(move || {
            let is_passphrase =
                identity::passphrase(&phrase).is_ok_and(|text| identity::unwrap(&wrapped, &text).is_ok());
            Ok(is_passphrase || verifier.is_some_and(|verifier| pin::is_right(&phrase, &verifier)))
        })
        .await
    }

    /// Typed on the requester's terminal and then shown there, since nobody knows again what was mistyped unseen.
    /// `None` for Enter alone.
    async fn typed_phrase(&self, client: &Client, prompt: &str) -> Result<Option<SecretBytes>, Refusal> {
        let _turn = self.queue.to_type(self.asker(&client.requester)).await?;
        let screen = Screen::of(&client.requester)?;
        let asked = async {
            screen.settle().await.map_err(No::Terminal)?;
            loop {
                let Typed::Line(line) = screen.read_line(prompt).await.map_err(No::Terminal)? else {
                    return Err(No::Declined.into());
                };
                if line.is_empty() {
                    return Ok(None);
                }
                let (said, phrase) = match parsed(&line) {
                    Some(phrase) => {
                        let text = escaped(&String::from_utf8_lossy(phrase.expose()), usize::MAX);
                        (format!("  phrase    {text}  (chosen by you)\n"), Some(phrase))
                    }
                    None => (format!("  That is none: {FORM}.\n"), None),
                };
                screen.write(&said).await.map_err(No::Terminal)?;
                if phrase.is_some() {
                    return Ok(phrase);
                }
            }
        };
        timeout(DEADLINE, asked).await.unwrap_or(Err(No::TimedOut(DEADLINE).into()))
    }
}
