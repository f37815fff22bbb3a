//! Opening and closing: init, unlock, lock, and what proves the passphrase.

use super::{Broker, Client, Refusal, Unsealed};
use crate::approval::pinentry::Desktop;
use crate::approval::place::Place;
use crate::approval::question::{Certainty, Question};
use crate::approval::{No, pin};
use crate::audit::event::Event;
use crate::audit::sink::{Durable, Sink};
use crate::clock;
use crate::hosts::pins::Pins;
use crate::journal::{self, Level};
use crate::policy::rule::{LOCK_IDLE, Policy};
use crate::policy::{parse, print};
use crate::trust::TrustList;
use crate::vault::linked::links::{self, Links};
use crate::vault::local::identity::{self, IdentityError};
use crate::vault::local::index::{Anchor, Kind};
use crate::vault::local::keys::Keys;
use crate::vault::local::{self, Remembered};
use keyloan_platform::private_file::Directory;
use keyloan_protocol::control::response::{Reply, VaultState};
use keyloan_protocol::secret::SecretBytes;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// The log's head is written into the index at most this often.
const ANCHOR_EVERY: Duration = Duration::from_secs(60);

type Done = Result<Reply, Refusal>;

/// How `unlock` was asked for.
pub(crate) struct Unlock {
    /// Questions come here from now on, although the vault is open already.
    pub(crate) here: bool,
    /// The passphrase is to be typed in a window.
    pub(crate) in_window: bool,
    /// Opens a vault that is older than the log remembers.
    pub(crate) accept_older: bool,
    /// With the key that the desktop's keyring keeps, and without any other effect of the passphrase.
    pub(crate) keyring: bool,
    /// Where the requester says windows can be opened; believed with the passphrase.
    pub(crate) desktop: Option<Desktop>,
}

fn unlocked(was_open: bool) -> &'static str {
    if was_open { "the vault was unlocked already" } else { "the vault is unlocked" }
}

impl Broker {
    pub(crate) async fn init(
        &self,
        client: &Client,
        passphrase: Option<SecretBytes>,
        new_pin: Option<SecretBytes>,
        phrase: Option<SecretBytes>,
        desktop: Option<Desktop>,
    ) -> Done {
        self.no_vault_yet()?;
        // A script that hands over all there has to be is asked for no more.
        let is_typed = passphrase.is_none() || new_pin.is_none();
        let passphrase = self.new_secret(client, passphrase, "passphrase for the vault", 1).await?;
        let pin = self.new_secret(client, new_pin, "PIN for approvals", pin::SHORTEST).await?;
        let phrase = self.first_phrase(client, phrase, is_typed, [&passphrase, &pin]).await?;
        let passphrase = identity::passphrase(&passphrase)?;
        let keys = Keys::generate().map_err(IdentityError::from)?;
        let text = Zeroizing::new(keys.expose_identity().to_owned());
        let (wrapped, verifier) = self
            .derive(move || {
                let wrapped = identity::wrap(&text, &passphrase)?;
                Ok((wrapped, pin::verifier(&pin).ok_or(Refusal::Task)?))
            })
            .await?;
        let policy = print::print(&Policy::default()).join("\n");
        let mut sealed = vec![
            (local::POLICY, SecretBytes::new(policy.into_bytes())),
            (local::PIN, verifier),
            (local::TRUST, SecretBytes::new(TrustList::default().bytes())),
        ];
        sealed.extend(phrase.map(|phrase| (local::PHRASE, phrase)));
        // Typing takes its time, and another may have made one meanwhile, whose log this is now.
        self.no_vault_yet()?;
        let moved = self.begin_log_anew()?;
        self.vault.borrow_mut().create(keys, &wrapped, sealed, &clock::now())?;
        let counter = self.vault.borrow().counter();
        self.log.borrow_mut().set_counter(counter);
        self.opened(client)?;
        self.record(&Event::VaultCreated, Durable::Now)?;
        self.move_surface(&client.requester, desktop);
        let path = self.vault.borrow().path().display().to_string();
        let mut notes = vec![format!("the vault is at {path} and unlocked")];
        notes.extend(moved);
        Ok(Reply::Done { notes })
    }

    pub(super) fn no_vault_yet(&self) -> Result<(), Refusal> {
        let mut vault = self.vault.borrow_mut();
        if vault.state() == VaultState::Absent {
            return Ok(());
        }
        Err(local::VaultError::Exists(vault.path().to_owned()).into())
    }

    /// The log of a vault that is gone is put aside: its chain hangs on a key that is gone with it.
    pub(super) fn begin_log_anew(&self) -> Result<Option<String>, Refusal> {
        if self.log.borrow().remembered() == 0 {
            return Ok(None);
        }
        let directory = Directory::open(&self.paths.state).map_err(local::VaultError::from)?;
        let aside = Sink::put_aside(&directory, &clock::now())?;
        *self.log.borrow_mut() = Sink::open(directory)?;
        self.log_mismatched.set(false);
        Ok(Some(format!("the log of an earlier vault was put aside as {aside}")))
    }

    pub(crate) async fn unlock(&self, client: &Client, passphrase: Option<SecretBytes>, how: Unlock) -> Done {
        if how.in_window && how.desktop.is_none() {
            return Err(Refusal::Input(
                "there is no desktop here: neither DISPLAY nor WAYLAND_DISPLAY is set",
            ));
        }
        let was_open = self.is_open();
        if how.keyring {
            if self.vault.borrow_mut().state() == VaultState::Absent {
                return Err(Refusal::Absent);
            }
            if !was_open {
                let text = self.identity_by_keyring(client, how.desktop.as_ref()).await?;
                self.open_with(client, &text, false)?;
            }
            return Ok(Reply::done(unlocked(was_open)));
        }
        let moves = how.here || !was_open;
        let mut question = Question::new("unlock the vault");
        if let Some(desktop) = how.desktop.as_ref().filter(|_| moves) {
            question.line("then asks", &format!("on {}", desktop.name), Certainty::Claimed);
        }
        let desktop = how.desktop.as_ref();
        let text = self.proved_identity(client, passphrase, question, desktop, how.in_window).await?;
        self.open_with(client, &text, how.accept_older)?;
        self.queue.board.deny_no_more();
        self.queue.hold_back_no_more();
        if moves {
            self.record(&Event::SurfaceMoved { by: self.who(&client.requester) }, Durable::Now)?;
            self.move_surface(&client.requester, how.desktop);
        }
        self.guessed.set(false);
        Ok(Reply::done(unlocked(was_open)))
    }

    /// Opens the vault for a request that needs it, asking for the passphrase in a window on the desktop of
    /// the last unlock, or else on the requester's terminal.
    pub(super) async fn open_vault_for(&self, client: &Client, what: &str) -> Result<(), Refusal> {
        if self.is_open() {
            self.last_used.set(clock::since_boot());
            return Ok(());
        }
        if self.vault.borrow_mut().state() == VaultState::Absent {
            return Err(Refusal::Absent);
        }
        let (asker, desktop) = (self.asker(&client.requester), self.desktop());
        self.queue.admits(asker, desktop.as_ref())?;
        if client.requester.terminal == 0 && desktop.is_none() {
            return Err(Refusal::Locked);
        }
        let question = Question::new(&format!("the vault is locked; unlock it to {what}?"));
        let turn = self.queue.turn(asker, false).await?;
        // Whoever asked before may have unlocked it meanwhile.
        if self.is_open() {
            return Ok(());
        }
        let wrapped = self.vault.borrow_mut().wrapped_identity()?;
        let mut place = match Place::find(desktop.as_ref(), &client.requester).await {
            Err(No::Unaskable | No::Windowless(_)) => return Err(Refusal::Locked),
            place => place?,
        };
        let text = self.unwrap_typed(client, &mut place, wrapped, question, turn).await?;
        self.open_with(client, &text, false)?;
        self.guessed.set(false);
        if let Place::Terminal(_) = place {
            self.move_surface(&client.requester, None);
        }
        Ok(())
    }

    pub(super) fn open_with(
        &self,
        client: &Client,
        identity: &str,
        accept_older: bool,
    ) -> Result<(), Refusal> {
        let keys = Keys::from_text(identity).map_err(IdentityError::from)?;
        if let Ok(held) = self.vault.borrow().keys() {
            // The identity files are not authentic by themselves: any program of the user can put others there.
            if held.is_identity(identity) {
                return Ok(());
            }
            self.record(&Event::UnlockFailed { by: self.who(&client.requester) }, Durable::Now)?;
            return Err(Refusal::WrongPassphrase);
        }
        let remembered = Remembered { counter: self.log.borrow().remembered(), accept_older };
        self.vault.borrow_mut().unlock(keys, remembered)?;
        if accept_older {
            let counter = self.vault.borrow().counter();
            self.log.borrow_mut().set_counter(counter);
        }
        self.opened(client)
    }

    /// What follows from an open vault: policy, trust, the log's key. Where any of it fails it closes again.
    pub(super) fn opened(&self, client: &Client) -> Result<(), Refusal> {
        let opened = self.load_sealed().and_then(|()| {
            let mismatch = self.compare_log()?;
            let vault = self.vault.borrow();
            if let Some(key) = vault.audit_key() {
                self.log.borrow_mut().adopt(key)?;
            }
            drop(vault);
            if let Some(mismatch) = mismatch {
                self.record(&mismatch, Durable::Now)?;
            }
            self.record(&Event::Unlocked { by: self.who(&client.requester) }, Durable::Now)?;
            self.read_history()?;
            self.check_public_file()
        });
        if opened.is_err() {
            self.history.forget();
            self.vault.borrow_mut().lock();
            *self.unsealed.borrow_mut() = None;
        }
        self.last_used.set(clock::since_boot());
        self.anchored_at.set(clock::since_boot());
        if opened.is_ok() {
            journal::say(Level::Info, "unlocked");
            self.opened.notify_waiters();
        }
        opened
    }

    fn load_sealed(&self) -> Result<(), Refusal> {
        let vault = self.vault.borrow();
        let policy = vault.sealed(local::POLICY)?.ok_or(Refusal::Sealed("policy"))?;
        let policy = str::from_utf8(policy.expose()).map_err(|_| Refusal::Sealed("policy"))?;
        let policy = parse::read(policy).map_err(|_| Refusal::Sealed("policy"))?;
        let trust = vault.sealed(local::TRUST)?.ok_or(Refusal::Sealed("trust list"))?;
        let trust = TrustList::read(trust.expose()).ok_or(Refusal::Sealed("trust list"))?;
        let pins = match vault.sealed(local::HOSTS)? {
            Some(bytes) => Pins::read(bytes.expose()).ok_or(Refusal::Sealed("list of hosts"))?,
            None => Pins::default(),
        };
        let links = match vault.read(Kind::Sealed, local::VAULTS)? {
            Some(fields) => links::read(&fields).ok_or(Refusal::Sealed("list of vaults"))?,
            None => Links::default(),
        };
        let links = Rc::new(links);
        *self.unsealed.borrow_mut() = Some(Unsealed { policy, trust, pins: Arc::new(pins), links });
        Ok(())
    }

    /// A log without the very record that the vault remembers was cut, replaced or put back: that is to be
    /// written down and is shown by `status`. Comes before anything is vouched for, and before another record
    /// takes the remembered one's place.
    fn compare_log(&self) -> Result<Option<Event>, Refusal> {
        let Some(anchor) = self.vault.borrow().index()?.anchor().cloned() else { return Ok(None) };
        let log = self.log.borrow();
        if log.chain_at(anchor.sequence)?.as_ref() == Some(&anchor.chain) {
            return Ok(None);
        }
        self.log_mismatched.set(true);
        Ok(Some(Event::Mismatched { expected: anchor.sequence, found: log.sequence() }))
    }

    /// Closes everything. What fails on the way does not keep it open.
    pub(crate) fn lock(&self, why: &'static str) {
        if !self.is_open() {
            return;
        }
        self.end_all_loans("the vault was locked");
        self.end_all_grants("the vault was locked");
        self.queue.board.end("the vault was locked");
        self.anchor_log();
        let _ = self.record(&Event::Locked { why }, Durable::Now);
        journal::say(Level::Info, &format!("locked: {why}"));
        let pinentry = self.with_policy(|policy| policy.pinentry.clone()).ok().flatten();
        self.surface.borrow_mut().pinentry = pinentry;
        self.lock_keys();
        self.linked.close().into_iter().for_each(|vault| self.leases.sign_out(vault));
        self.history.forget();
        self.vault.borrow_mut().lock();
        *self.unsealed.borrow_mut() = None;
        self.locked.notify_waiters();
    }

    pub(super) fn is_open(&self) -> bool {
        self.vault.borrow().is_open()
    }

    /// Writes the log's head into the index, so that a log cut later is noticed.
    fn anchor_log(&self) {
        let Ok(anchor) = self.log_head() else { return };
        let mut vault = self.vault.borrow_mut();
        let known = vault.index().ok().and_then(|index| index.anchor().cloned());
        if known.as_ref() != Some(&anchor) && vault.anchor(anchor).is_ok() {
            self.log.borrow_mut().saw_counter(vault.counter());
        }
        self.anchored_at.set(clock::since_boot());
    }

    /// Where the log ends, on disk: a record that a power failure took away, and the vault remembers, would
    /// look like a cut.
    pub(super) fn log_head(&self) -> Result<Anchor, Refusal> {
        let mut log = self.log.borrow_mut();
        log.sync()?;
        Ok(Anchor { sequence: log.sequence(), chain: log.chain() })
    }

    /// Called every few seconds: locks after the idle time, anchors the log.
    pub(crate) fn tick(&self) {
        self.end_expired();
        self.end_grants_over();
        self.linked.kept.borrow_mut().forget_expired(clock::since_boot());
        // The refusals did not depend on their record.
        let _ = self.tell_turned_away();
        self.agent_tick();
        if !self.is_open() {
            return;
        }
        if self.idle_left() == Some(Duration::ZERO) {
            self.lock("idle");
        } else if clock::since_boot().saturating_sub(self.anchored_at.get()) > ANCHOR_EVERY {
            self.anchor_log();
        }
    }

    /// Time until the vault locks itself; the configuration file can only shorten it.
    pub(super) fn idle_left(&self) -> Option<Duration> {
        let idle = self.with_policy(|policy| policy.lock_idle).ok()?;
        let idle = idle.min(self.config.lock_idle.unwrap_or(LOCK_IDLE.max(idle)));
        let used = clock::since_boot().saturating_sub(self.last_used.get());
        Some(idle.saturating_sub(used))
    }

    pub(crate) async fn passwd(
        &self,
        client: &Client,
        passphrase: Option<SecretBytes>,
        new: Option<SecretBytes>,
    ) -> Done {
        self.open_vault_for(client, "change its passphrase").await?;
        self.prove_passphrase(client, passphrase, &Question::new("change the passphrase")).await?;
        let new = self.new_secret(client, new, "new passphrase for the vault", 1).await?;
        let new = identity::passphrase(&new)?;
        let _alone = self.keeping.lock().await;
        let text = Zeroizing::new(self.vault.borrow().keys()?.expose_identity().to_owned());
        let wrapped = self.derive(move || Ok(identity::wrap(&text, &new)?)).await?;
        self.record(&Event::PassphraseChanged { by: self.who(&client.requester) }, Durable::Now)?;
        self.vault.borrow_mut().replace_wrapped_identity(&wrapped)?;
        Ok(Reply::done("the passphrase is changed; backups made before still open with the old one"))
    }

    pub(crate) async fn pin(
        &self,
        client: &Client,
        passphrase: Option<SecretBytes>,
        new: Option<SecretBytes>,
    ) -> Done {
        self.open_vault_for(client, "change the PIN").await?;
        self.prove_passphrase(client, passphrase, &Question::new("change the PIN for approvals")).await?;
        let new = self.new_secret(client, new, "new PIN for approvals", pin::SHORTEST).await?;
        let verifier = self.derive(move || pin::verifier(&new).ok_or(Refusal::Task)).await?;
        self.vault.borrow_mut().check_writable()?;
        self.record(&Event::PinChanged { by: self.who(&client.requester) }, Durable::Now)?;
        self.vault.borrow_mut().seal(local::PIN, verifier, &clock::now())?;
        Ok(Reply::done("the PIN is changed"))
    }

    /// The passphrase of an open vault, for what loosens or hands over. Typed on the requester's terminal
    /// only: a program without one could otherwise bring up a window for a change of its own.
    pub(super) async fn prove_passphrase(
        &self,
        client: &Client,
        given: Option<SecretBytes>,
        question: &Question,
    ) -> Result<(), Refusal> {
        let text = self.proved_identity(client, given, question.clone(), None, false).await?;
        if self.vault.borrow().keys()?.is_identity(&text) { Ok(()) } else { Err(Refusal::WrongPassphrase) }
    }

    /// Runs a key derivation off the event loop, one at a time. It goes on when its requester goes away, so
    /// the next one waits for its end and not for the requester's.
    pub(super) async fn derive<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let one = Arc::clone(&self.derivation).lock_owned().await;
        let work = move || {
            let _one = one;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| Refusal::Task)?
    }
}
