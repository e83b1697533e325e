//! Answering: from what is durable, without state about who asks.

use super::{
    have::Have,
    message::{Cursor, Response, Sent},
};
use crate::{
    dag::{Dag, Place},
    id::EpochId,
    space::{View, ViewError},
};

/// The durable epochs of one space, to be served from.
pub trait Source: View {
    /// The DAG; all of it is durable.
    fn dag(&self) -> &Dag;

    /// Where in the log the epoch at `place` lies; ancestors lie before what rests on them. `None` if it is not there.
    ///
    /// # Errors
    /// [`ViewError`] when the index cannot be read.
    fn position(&self, place: Place) -> Result<Option<Cursor>, ViewError>;

    /// The epoch at `place`, with the inline values of it that win here now, at most `values_bytes_max` bytes of them.
    ///
    /// # Errors
    /// [`ViewError`] when index or log cannot be read.
    fn read(&self, place: Place, values_bytes_max: usize) -> Result<Sent, ViewError>;
}

/// Answers [`super::Request::Pull`]: what the peer lacks, in the order of the log, about `bytes_max` bytes and one epoch at
/// least.
///
/// # Errors
/// [`ViewError`] when index or log cannot be read.
pub fn serve_pull(
    _source: &dyn Source,
    _have: &Have,
    _after: Option<Cursor>,
    _bytes_max: usize,
) -> Result<Response, ViewError> {
    todo!()
}

/// Answers [`super::Request::Get`].
///
/// # Errors
/// As [`serve_pull`].
pub fn serve_get(_source: &dyn Source, _epochs: &[EpochId], _bytes_max: usize) -> Result<Response, ViewError> {
    todo!()
}
