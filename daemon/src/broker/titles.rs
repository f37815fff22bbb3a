//! Sets in linked vaults: which vault's item a title means. A vault that did not answer is passed over nowhere, since
//! whoever can keep one from answering would choose which set is lent; and none is waited for whose answer decides
//! nothing.

use super::linked::{Asked, in_time};
use super::refusal::VaultFailed;
use super::{Broker, Client, Refusal};
use crate::env_set::plan::{Sought, Titled, VARS};
use crate::vault::linked;
use crate::vault::linked::links::Links;
use keyloan_protocol::names::{ItemName, VaultName};
use tokio::task::JoinSet;

/// What a vault has of the titles that were asked for.
type Answer = Result<Vec<ItemName>, Box<VaultFailed>>;

/// Searched vaults in their order, each with its answer as soon as that is there.
type Answers = [(VaultName, Option<Answer>)];

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Searched {
    pub(super) found: Vec<Titled>,
    /// Vaults that did not answer where that decides nothing, and how they are.
    pub(super) unsearched: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Settled {
    As(Searched),
    /// By the failure of the vault at this place.
    Failed(usize),
}

impl Broker {
    pub(super) async fn titled(
        &self,
        client: &Client,
        links: &Links,
        sought: &[Sought],
    ) -> Result<Searched, Refusal> {
        let mut searching = JoinSet::new();
        let mut answers = Vec::new();
        for (at, link) in links.searched().enumerate() {
            let answer = match self.asked(client, link) {
                Ok(asked) => {
                    let titles: Vec<String> = sought.iter().flat_map(|one| one.titles.clone()).collect();
                    searching.spawn_local(async move { (at, asked.titled(&titles).await) });
                    None
                }
                Err(Refusal::Linked(failed)) => Some(Err(failed)),
                Err(refusal) => return Err(refusal),
            };
            answers.push((link.name.clone(), answer));
        }
        loop {
            match settled(sought, &answers) {
                Some(Settled::As(searched)) => return Ok(searched),
                Some(Settled::Failed(at)) => {
                    let answer = answers.into_iter().nth(at).and_then(|(_, answer)| answer);
                    let failed = answer.and_then(Result::err).ok_or(Refusal::Task)?;
                    return Err(Refusal::Linked(Box::new(failed.in_a_search())));
                }
                None => {}
            }
            let answered = searching.join_next().await.ok_or(Refusal::Task)?;
            let (at, answer) = answered.map_err(|_| Refusal::Task)?;
            if let Some((_, held)) = answers.get_mut(at) {
                *held = Some(answer);
            }
        }
    }
}

impl Asked {
    /// The items that have one of these titles, and may be sets.
    async fn titled(self, titles: &[String]) -> Answer {
        let listed = in_time(self.vault.search(), self.vault.list(&self.call)).await;
        let listed = listed.map_err(|fault| Box::new(self.failed(fault, Vec::new())))?;
        let is_set = |listed: &linked::Listed| {
            let may_be =
                !self.vault.lists_fields() || listed.fields.iter().any(|field| field.as_str() == VARS);
            may_be && titles.iter().any(|title| title == listed.item.as_str())
        };
        Ok(listed.into_iter().filter(is_set).map(|listed| listed.item).collect())
    }
}

/// What the answers so far come to; nothing as long as one is missing that could change it.
fn settled(sought: &[Sought], answers: &Answers) -> Option<Settled> {
    let mut searched = Searched::default();
    for one in sought {
        let mut found = None;
        for (at, (vault, answer)) in answers.iter().enumerate() {
            match answer.as_ref()? {
                Ok(items) => {
                    let has = |title: &String| items.iter().find(|item| item.as_str() == title);
                    found = one.titles.iter().find_map(has);
                }
                // A set of the file, which somebody trusted, counts as it is.
                Err(failed) if one.is_in_file => {
                    let note = format!("not searched: {vault} ({})", failed.fault.key());
                    if !searched.unsearched.contains(&note) {
                        searched.unsearched.push(note);
                    }
                }
                Err(_) => return Some(Settled::Failed(at)),
            }
            if let Some(item) = found {
                searched.found.push(Titled { vault: vault.clone(), item: item.clone() });
                break;
            }
        }
        if found.is_some() && one.is_enough {
            break;
        }
    }
    Some(Settled::As(searched))
}

impl VaultFailed {
    /// The way out, besides what can be done about the fault.
    fn in_a_search(mut self) -> Self {
        let test = || format!("keyloan vault test {}", self.vault);
        let hint = self.hint.take().unwrap_or_else(test);
        self.hint = Some(format!(
            "{hint}; or leave it out of searches: keyloan vault add --replace {} --no-search",
            self.vault
        ));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::linked::Fault;

    enum Said {
        Has(&'static [&'static str]),
        Failed,
        Nothing,
    }
    use Said::{Failed, Has, Nothing};

    impl Said {
        fn answer(self) -> Option<Answer> {
            let vault = VaultName::parse("x").unwrap();
            let fault = Fault::Unreachable("/evil words".to_owned());
            match self {
                Has(titles) => Some(Ok(titles.iter().map(|title| ItemName::parse(title).unwrap()).collect())),
                Failed => Some(Err(Box::new(VaultFailed { vault, fault, hint: None, others: Vec::new() }))),
                Nothing => None,
            }
        }
    }

    /// The vaults are called `a`, `b`, … in their order.
    fn of(sought: &[&str], is_enough: bool, is_in_file: bool, said: Vec<Said>) -> Option<String> {
        let sought: Vec<Sought> = sought
            .iter()
            .map(|title| Sought { titles: vec![(*title).to_owned()], is_enough, is_in_file })
            .collect();
        let names = ["a", "b", "c"].map(|name| VaultName::parse(name).unwrap());
        let answers: Vec<_> = names.into_iter().zip(said.into_iter().map(Said::answer)).collect();
        Some(match settled(&sought, &answers)? {
            Settled::Failed(at) => format!("failed {at}"),
            Settled::As(Searched { found, unsearched }) => {
                let found = found.iter().map(|titled| format!("{}:{}", titled.vault, titled.item));
                found.chain(unsearched).collect::<Vec<_>>().join(" ")
            }
        })
    }

    #[test]
    fn of_directories_the_nearest_counts_and_in_one_directory_the_first_vault() {
        let nearest = |answers| of(&["near", "far"], true, false, answers);
        assert_eq!(nearest(vec![Has(&["far"]), Has(&["near", "far"])]).unwrap(), "b:near");
        assert_eq!(nearest(vec![Has(&["near"]), Has(&["near"])]).unwrap(), "a:near");
        assert_eq!(nearest(vec![Has(&["far"]), Has(&[])]).unwrap(), "a:far");
        assert_eq!(nearest(vec![Has(&[]), Has(&[])]).unwrap(), "");
    }

    #[test]
    fn a_vault_that_could_change_what_is_found_is_waited_for_and_its_failure_is_final() {
        let nearest = |answers| of(&["near", "far"], true, false, answers);
        assert_eq!(nearest(vec![Nothing, Has(&["near"])]), None);
        assert_eq!(nearest(vec![Has(&["far"]), Nothing]), None);
        assert_eq!(nearest(vec![Failed, Nothing]).unwrap(), "failed 0");
        assert_eq!(nearest(vec![Has(&["far"]), Failed]).unwrap(), "failed 1");
        assert_eq!(of(&["x", "y"], false, false, vec![Has(&["x"]), Failed]).unwrap(), "failed 1");
    }

    #[test]
    fn a_vault_that_can_change_nothing_is_not_waited_for() {
        let nearest = |answers| of(&["near", "far"], true, false, answers);
        assert_eq!(nearest(vec![Has(&["near"]), Nothing, Failed]).unwrap(), "a:near");
        let each = of(&["x", "y"], false, false, vec![Has(&["x", "y"]), Nothing]);
        assert_eq!(each.unwrap(), "a:x a:y");
    }

    #[test]
    fn a_set_of_the_file_needs_no_vault_and_of_one_that_fails_its_name_and_state_are_told() {
        let in_file = of(&["x", "y"], false, true, vec![Failed, Has(&["y"])]);
        assert_eq!(in_file.unwrap(), "b:y not searched: a (unreachable)");
    }
}
