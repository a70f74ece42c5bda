//! What must hold of the kit, whatever the history.
