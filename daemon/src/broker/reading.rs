//! Reading what was approved for a loan: the local vault's items, and those of linked vaults, one batch a vault.

use super::leases::Leases;
use super::shell::not_for_shells;
use super::{Approved, Broker, Client, Refusal};
use crate::env_set::plan::{self, From, Plan, PlanError, Planned, Unread, VARS};
use crate::vault::local::item_file::Field;
use crate::vault::local::{LocalVault, index};
use keyloan_protocol::control::Value;
use keyloan_protocol::control::response::{FilePart, LentFile};
use keyloan_protocol::env_vars;
use keyloan_protocol::limits;
use keyloan_protocol::names::VarName;
use keyloan_protocol::reference::Reference;
use keyloan_protocol::secret::SecretBytes;
use keyloan_protocol::shell_vars;
use std::collections::{HashMap, HashSet};

impl Broker {
    /// Reads what was approved, each item once.
    pub(super) async fn read_planned(
        &self,
        client: &Client,
        approved: &Approved,
        plan: &mut Plan,
    ) -> Result<(Vec<Value>, Vec<LentFile>, Leases), Refusal> {
        let elsewhere = plan.variables.iter().flat_map(Planned::references);
        let elsewhere = elsewhere.filter(|reference| !reference.vault.is_local());
        let unread = plan.unread.iter().map(|unread| &unread.reference);
        let elsewhere: Vec<&Reference> = elsewhere.chain(unread).collect();
        let (elsewhere, leases) = self.read_for_loan(client, approved, &elsewhere).await?;
        let sets = open_sets(plan, &elsewhere)?;
        let mut items = Items { vault: &self.vault.borrow(), read: HashMap::new(), elsewhere: &elsewhere };
        let mut values = Values { of: Vec::with_capacity(plan.variables.len()), bytes: 0 };
        let mut files = Vec::new();
        for planned in &plan.variables {
            let name = &planned.name;
            match &planned.from {
                From::Literal(text) => values.add(name.as_str(), text.as_bytes())?,
                From::Field(reference) => values.add_variable(name, items.of(reference)?)?,
                // With all others of its item, below.
                From::Vars(_) => {}
                From::Line(reference) => {
                    let value = sets.get(reference).and_then(|held| held.get(name));
                    values.add_variable(name, value.ok_or(Refusal::Task)?)?;
                }
                From::Files(form, parts) => {
                    let mut lent = LentFile { variable: name.clone(), form: *form, parts: Vec::new() };
                    for (file, reference) in parts {
                        // No variable's name holds a slash.
                        let value = format!("{name}/{file}");
                        values.add(&value, items.of(reference)?)?;
                        lent.parts.push(FilePart { name: file.clone(), value });
                    }
                    files.push(lent);
                }
            }
        }
        for item in plan.items_with_variables() {
            let text = items.field(item.as_str(), VARS)?;
            let gone = || Refusal::NoField { item: item.to_string(), field: VARS.to_owned() };
            let held: HashMap<_, _> = env_vars::parse_vars(text).map_err(|_| gone())?.into_iter().collect();
            let of_item = |planned: &&Planned| matches!(&planned.from, From::Vars(from) if from == item);
            for Planned { name, .. } in plan.variables.iter().filter(of_item) {
                values.add_variable(name, held.get(name).ok_or_else(gone)?)?;
            }
        }
        Ok((values.of, files, leases))
    }
}

/// The variables of a set, by name, as they lie in its text.
type Held<'a> = HashMap<VarName, &'a [u8]>;

/// Puts the variables of the sets that were read in the place of these, as `Draft` does it for sets whose names are
/// known: later sets win, and what steers is left out. Whoever can write to a vault writes sets: what they cost is bounded
/// by what one loan holds.
fn open_sets<'a>(
    plan: &mut Plan,
    values: &'a HashMap<Reference, SecretBytes>,
) -> Result<HashMap<Reference, Held<'a>>, Refusal> {
    let mut sets = HashMap::new();
    let only: HashSet<VarName> = plan.only.iter().cloned().collect();
    let mut places: HashMap<VarName, usize> =
        plan.variables.iter().enumerate().map(|(place, planned)| (planned.name.clone(), place)).collect();
    let mut left_out = 0;
    for Unread { reference, at } in std::mem::take(&mut plan.unread) {
        let text = values.get(&reference).ok_or(Refusal::Task)?;
        let fault = |error| PlanError::Faults(vec![format!("{reference}: {error}")]);
        let held = env_vars::parse_vars(text.expose()).map_err(fault)?;
        for (name, _) in held.iter().filter(|(name, _)| only.is_empty() || only.contains(name)) {
            if env_vars::steers(name.as_str()) {
                let note =
                    format!("{name} of {reference} is not lent: it steers what runs or where it talks");
                plan.notes.push(note);
                left_out += 1;
            } else if plan.for_shell && shell_vars::is_the_shells(name.as_str()) {
                plan.notes.push(not_for_shells(name));
                left_out += 1;
            } else {
                let from = From::Line(reference.clone());
                let set = format!("item '{}'", reference.item);
                let planned = Planned { name: name.clone(), from, set, at };
                match places.get(name).and_then(|place| plan.variables.get_mut(*place)) {
                    Some(later) if later.at > at => {}
                    Some(earlier) => *earlier = planned,
                    None => {
                        places.insert(name.clone(), plan.variables.len());
                        plan.variables.push(planned);
                    }
                }
            }
            // Of each that is left out a sentence tells.
            let many = plan.variables.len() + left_out;
            if many > limits::VALUES {
                let many = format!("{many} variables or more; one loan holds at most {}", limits::VALUES);
                return Err(PlanError::Faults(vec![many]).into());
            }
        }
        sets.insert(reference, held.into_iter().collect());
    }
    if let Some(name) = plan.only.iter().find(|name| !places.contains_key(name)) {
        return Err(PlanError::Faults(vec![format!("no set that was asked for has {name}")]).into());
    }
    if plan.variables.is_empty() {
        return Err(PlanError::Nothing.into());
    }
    Ok(sets)
}

/// Items as they are read for one loan.
struct Items<'a> {
    vault: &'a LocalVault,
    read: HashMap<String, Vec<Field>>,
    elsewhere: &'a HashMap<Reference, SecretBytes>,
}

impl Items<'_> {
    fn of(&mut self, reference: &Reference) -> Result<&[u8], Refusal> {
        if reference.vault.is_local() {
            return self.field(reference.item.as_str(), reference.field.as_str());
        }
        self.elsewhere.get(reference).map(SecretBytes::expose).ok_or(Refusal::Task)
    }

    fn field(&mut self, item: &str, field: &str) -> Result<&[u8], Refusal> {
        if !self.read.contains_key(item) {
            let fields = self.vault.read(index::Kind::Item, item)?;
            let gone = || Refusal::NotFound { what: "item", name: item.to_owned() };
            self.read.insert(item.to_owned(), fields.ok_or_else(gone)?);
        }
        let held = self.read[item].iter().find(|held| held.name.as_str() == field);
        let gone = || Refusal::NoField { item: item.to_owned(), field: field.to_owned() };
        held.map(|held| held.value.expose()).ok_or_else(gone)
    }
}

/// What is lent, as it is gathered: never more than one reply carries.
struct Values {
    of: Vec<Value>,
    bytes: usize,
}

impl Values {
    fn add(&mut self, name: &str, value: &[u8]) -> Result<(), Refusal> {
        self.bytes += value.len();
        if let Some(fault) = plan::too_much(self.bytes) {
            return Err(PlanError::Faults(vec![fault]).into());
        }
        self.of.push(Value::new(name, SecretBytes::copy_of(value)));
        Ok(())
    }

    fn add_variable(&mut self, name: &VarName, value: &[u8]) -> Result<(), Refusal> {
        let nul = || {
            format!("{name}: the value holds a NUL byte, which no environment can carry (lend it as a file)")
        };
        let fault = value.contains(&0).then(nul).or_else(|| plan::too_long(name, value.len()));
        match fault {
            Some(fault) => Err(PlanError::Faults(vec![fault]).into()),
            None => self.add(name.as_str(), value),
        }
    }
}
