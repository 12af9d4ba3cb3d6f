//! What `--help` says of reports, word for word.

use crate::help::help_of;

/// What can be reported of an order.
#[tokio::test]
async fn help_of_order_report() {
    insta::assert_snapshot!(help_of(&["order", "report", "-h"]).await, @r"
    Report what happened to an order

    Usage: order-tracker order report [OPTIONS] <ORDER_ID> <EVENT>

    Arguments:
      <ORDER_ID>  The order's id, ORD-...
      <EVENT>     What happened [possible values: PREPARING, COOKING, OUT_FOR_DELIVERY, DELIVERED,
                  CANCELLED, READY, COURIER_ASSIGNED, COURIER_AT_PICKUP, COURIER_AT_DOOR,
                  DELIVERY_FAILED, DELAYED, REVERTED]

    Options:
          --reason <REASON>     Why: a cancel needs one, a delay and a failed delivery may have one
                                [possible values: customer_request, out_of_stock, kitchen_closed,
                                too_busy, not_accepted, duplicate, fraud, outside_area,
                                courier_unavailable, undeliverable, other]
          --minutes <N>         By how many minutes it is DELAYED
          --station <NAME>      Where in the kitchen
          --reverts <N>         Which event REVERTED takes back, by its number in the timeline; the
                                latest step unless given
          --note <TEXT>         What else there is to say, for those who work on the order
          --source <SOURCE>     Who says so [possible values: kitchen, courier, pos, staff, customer]
          --occurred-at <TIME>  When it happened, such as 2026-01-31T18:30:00Z; now unless given
          --id <ID>             Your name for this report: the same one again changes nothing; made up
                                unless given
          --url <URL>           Where the service listens, http:// or https://; `SSL_CERT_FILE` names
                                certificates to trust in place of the system's, and `ORDER_TRACKER_KEY`
                                holds the key if it asks for one [env: ORDER_TRACKER_URL] [default:
                                http://127.0.0.1:8080]
          --json                Print JSON, complaints on stderr too
      -h, --help                Print help (see more with '--help')

    [logging]
    ");
}

/// What a cancel needs.
#[tokio::test]
async fn help_of_order_cancel() {
    insta::assert_snapshot!(help_of(&["order", "cancel", "-h"]).await, @r"
    Cancel an order

    Usage: order-tracker order cancel [OPTIONS] --reason <REASON> <ORDER_ID>

    Arguments:
      <ORDER_ID>  The order's id, ORD-...

    Options:
          --reason <REASON>     Why [possible values: customer_request, out_of_stock, kitchen_closed,
                                too_busy, not_accepted, duplicate, fraud, outside_area,
                                courier_unavailable, undeliverable, other]
          --note <TEXT>         What else there is to say, for those who work on the order
          --source <SOURCE>     Who says so [possible values: kitchen, courier, pos, staff, customer]
          --occurred-at <TIME>  When it happened, such as 2026-01-31T18:30:00Z; now unless given
          --id <ID>             Your name for this report: the same one again changes nothing; made up
                                unless given
          --url <URL>           Where the service listens, http:// or https://; `SSL_CERT_FILE` names
                                certificates to trust in place of the system's, and `ORDER_TRACKER_KEY`
                                holds the key if it asks for one [env: ORDER_TRACKER_URL] [default:
                                http://127.0.0.1:8080]
          --json                Print JSON, complaints on stderr too
      -h, --help                Print help (see more with '--help')

    [logging]
    ");
}

/// What a load can be, with those who report.
#[tokio::test]
async fn help_of_simulate() {
    insta::assert_snapshot!(help_of(&["simulate", "-h"]).await, @r"
    Place made-up orders on a running service and measure how it takes them

    Usage: order-tracker simulate [OPTIONS]

    Options:
          --rate <N>             Orders a second, sent on time whether or not earlier ones are answered;
                                 if unset as many as the service takes, or 10 with --reports
          --concurrency <N>      Most orders under way at once [default: 64]
          --count <N>            End after so many orders
          --duration <DURATION>  End after so long; 10s if neither this nor --count is given
          --wait                 Then wait until every order is delivered or cancelled
          --reports              Also play the kitchens and couriers that report on these orders, with
                                 delays, mistakes and cancels
          --speed <N>            So many times as fast as stages usually are [default: 1]
          --seed <N>             What is reported is made up from this number: the same one, the same
                                 lives; another each time unless given
          --url <URL>            Where the service listens, http:// or https://; `SSL_CERT_FILE` names
                                 certificates to trust in place of the system's, and `ORDER_TRACKER_KEY`
                                 holds the key if it asks for one [env: ORDER_TRACKER_URL] [default:
                                 http://127.0.0.1:8080]
          --json                 Print JSON, complaints on stderr too
      -h, --help                 Print help (see more with '--help')

    [logging]
    ");
}
