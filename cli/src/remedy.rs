//! Remedies for errors of the library: commands of vipool and keys of farm.toml. The library's own
//! messages contain no remedies, because other programs also show these messages.

use std::error::Error;

use vipool::map::{ChangeError, CloseError, MapError, OpenError, Shortage};

/// Returns the text of an error with its causes, and the remedy if there is one.
pub fn describe(error: &anyhow::Error) -> String {
    with_remedy(format!("{error:#}"), error.chain().find_map(remedy_of))
}

/// Returns the reason why a session was not opened, and the remedy if there is one.
pub fn describe_open_error(error: &OpenError) -> String {
    with_remedy(error.to_string(), remedy_of_open_error(error))
}

/// Returns the reason why a pool has no address for a session, and the remedy if there is one.
pub fn describe_shortage(shortage: &Shortage) -> String {
    with_remedy(shortage.to_string(), remedy_of_shortage(shortage))
}

fn with_remedy(text: String, remedy: Option<&str>) -> String {
    match remedy {
        Some(remedy) => format!("{text} ({remedy})"),
        None => text,
    }
}

fn remedy_of(error: &(dyn Error + 'static)) -> Option<&'static str> {
    if let Some(error) = error.downcast_ref::<OpenError>() {
        return remedy_of_open_error(error);
    }
    if let Some(CloseError::Map(error)) = error.downcast_ref() {
        return remedy_of_map_error(error);
    }
    if let Some(error) = error.downcast_ref::<ChangeError>() {
        return match error {
            ChangeError::ReservedForAnother(_) => Some("'vipool unreserve' removes a reservation"),
            ChangeError::Map(error) => remedy_of_map_error(error),
            _ => None,
        };
    }
    error
        .downcast_ref()
        .and_then(remedy_of_map_error)
        .or_else(|| error.downcast_ref().and_then(remedy_of_shortage))
}

fn remedy_of_open_error(error: &OpenError) -> Option<&'static str> {
    match error {
        OpenError::Shortage { shortage, .. } => remedy_of_shortage(shortage),
        OpenError::Map(error) => remedy_of_map_error(error),
        OpenError::UnknownPool(_) => Some("'vipool status' lists the pools"),
        OpenError::AddressLingering(_) => Some("run 'vipool gc'"),
        OpenError::AddressDrained(_) => Some("run 'vipool undrain'"),
        OpenError::Quota { .. } => Some("sessions-per-user in farm.toml"),
        OpenError::TooManySessions(_) => Some("max-sessions in farm.toml"),
        OpenError::OtherAddress(_) => Some("run 'vipool session close' first"),
        _ => None,
    }
}

fn remedy_of_map_error(error: &MapError) -> Option<&'static str> {
    match error {
        MapError::Missing(_) => Some("create it with 'vipool up'"),
        MapError::OtherBoot(_) => Some("run 'vipool up'"),
        _ => None,
    }
}

fn remedy_of_shortage(shortage: &Shortage) -> Option<&'static str> {
    match shortage {
        Shortage::Lingering => Some("run 'vipool gc'"),
        Shortage::Draining => Some("run 'vipool undrain'"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn remedies_are_found_in_the_causes_of_an_error() {
        let missing = || MapError::Missing("/run/x/map".into());
        let errors = [
            (anyhow::Error::from(missing()), "there is no map at /run/x/map"),
            (OpenError::from(missing()).into(), "there is no map at /run/x/map"),
            (
                Err::<(), _>(CloseError::from(missing())).context("cannot close").unwrap_err(),
                "cannot close: there is no map at /run/x/map",
            ),
        ];
        for (error, text) in errors {
            assert_eq!(describe(&error), format!("{text} (create it with 'vipool up')"));
        }
        assert_eq!(describe(&anyhow::anyhow!("no")), "no");
        assert!(describe_shortage(&Shortage::Draining).ends_with("(run 'vipool undrain')"));
    }
}
