//! The few words that a report may use: who says so, and why.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Makes an enum of words, each with its name in JSON and on the command line.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $error:ident: $($(#[$of:meta])* $word:ident = $text:tt;)+) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
        )]
        pub enum $name {
            $($(#[$of])* #[serde(rename = $text)] $word,)+
        }

        impl $name {
            /// All, in the order of the contract.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$word),+];

            /// The name in JSON.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$word => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::ALL.into_iter().find(|word| word.as_str() == text).ok_or($error)
            }
        }
    };
}

words! {
    /// Why an order was cancelled or delayed, or could not be handed over.
    Reason, ParseReasonError:
    /// The customer asked for it.
    CustomerRequest = "customer_request";
    /// Something in it has run out.
    OutOfStock = "out_of_stock";
    /// The kitchen has closed.
    KitchenClosed = "kitchen_closed";
    /// The kitchen has more than it can cook.
    TooBusy = "too_busy";
    /// Nobody took it in time.
    NotAccepted = "not_accepted";
    /// It is a second copy of another order.
    Duplicate = "duplicate";
    /// Somebody means harm.
    Fraud = "fraud";
    /// The address is too far away.
    OutsideArea = "outside_area";
    /// No courier is free.
    CourierUnavailable = "courier_unavailable";
    /// The courier can't hand it over.
    Undeliverable = "undeliverable";
    /// Something else.
    Other = "other";
}

words! {
    /// Who says that something happened.
    Source, ParseSourceError:
    /// The kitchen.
    Kitchen = "kitchen";
    /// Who brings it.
    Courier = "courier";
    /// The till.
    Pos = "pos";
    /// Who runs the place.
    Staff = "staff";
    /// Who ordered.
    Customer = "customer";
    /// Where it was ordered.
    Shop = "shop";
    /// Who runs the service.
    Admin = "admin";
    /// A program that does not say for whom.
    Api = "api";
    /// Nobody: it was time.
    Timer = "timer";
}

impl Source {
    /// Those that a report may name by itself, as long as no keys tell who it is.
    pub const NAMED: [Self; 5] = [Self::Kitchen, Self::Courier, Self::Pos, Self::Staff, Self::Customer];
}

/// The text is none of the reasons.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be one of {}", Reason::ALL.map(Reason::as_str).join(", "))]
pub struct ParseReasonError;

/// The text is none of those who may be named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be one of {}", Source::NAMED.map(Source::as_str).join(", "))]
pub struct ParseSourceError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_round_trip_and_nothing_else_parses() {
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(reason));
            assert_eq!(serde_json::to_value(reason).expect("json"), reason.as_str());
        }
        for source in Source::ALL {
            assert_eq!(source.as_str().parse(), Ok(source));
        }
        assert_eq!("Fraud".parse::<Reason>(), Err(ParseReasonError));
        let named = "must be one of kitchen, courier, pos, staff, customer";
        assert_eq!("".parse::<Source>().map_err(|error| error.to_string()), Err(named.to_owned()));
    }
}
