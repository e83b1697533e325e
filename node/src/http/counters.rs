//! How many requests were answered, by what they were for and how it went.

use std::{
    array,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use warp::{Filter, filters::BoxedFilter, http::StatusCode, path::FullPath, reply::Response};

use super::Context;

/// What requests are for, by the first segment of their path; the last one is everything else.
const ROUTES: [&str; 7] = ["invoke", "delegate", "revoke", "v0", "info", "healthz", "other"];
/// Hundreds of a status: 1xx to 5xx.
const OUTCOMES: usize = 5;

/// Answers since the start.
#[derive(Debug)]
pub(crate) struct Counters([[AtomicU64; OUTCOMES]; ROUTES.len()]);

impl Default for Counters {
    fn default() -> Self {
        Self(array::from_fn(|_| array::from_fn(|_| AtomicU64::new(0))))
    }
}

impl Counters {
    fn count(&self, path: &str, status: StatusCode) {
        let first = path.split('/').nth(1).unwrap_or_default();
        let first = if first == "version" { "info" } else { first };
        let route = ROUTES.iter().position(|known| *known == first).unwrap_or(ROUTES.len() - 1);
        let outcome = usize::from(status.as_u16() / 100).clamp(1, OUTCOMES) - 1;
        self.0[route][outcome].fetch_add(1, Ordering::Relaxed);
    }

    /// Route, hundreds of the status, and how often; what never was is left out.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, usize, u64)> {
        ROUTES.iter().zip(&self.0).flat_map(|(route, outcomes)| {
            let told = outcomes.iter().enumerate().map(|(at, count)| (*route, at + 1, count.load(Ordering::Relaxed)));
            told.filter(|(_, _, count)| *count > 0)
        })
    }
}

/// The same routes, counted.
pub(super) fn counted(context: &Arc<Context>, routes: BoxedFilter<(Response,)>) -> BoxedFilter<(Response,)> {
    let context = context.clone();
    warp::path::full()
        .and(routes)
        .map(move |path: FullPath, response: Response| {
            context.counters.count(path.as_str(), response.status());
            response
        })
        .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_for_its_route_and_outcome() {
        let counters = Counters::default();
        for (path, status) in
            [("/invoke", 200), ("/invoke", 401), ("/invoke", 404), ("/version", 200), ("/nothing", 404), ("/", 500)]
        {
            counters.count(path, StatusCode::from_u16(status).expect("a status"));
        }
        let all: Vec<_> = counters.all().collect();
        assert_eq!(all, [("invoke", 2, 1), ("invoke", 4, 2), ("info", 2, 1), ("other", 4, 1), ("other", 5, 1)]);
    }
}
