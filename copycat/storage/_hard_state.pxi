# A part of _native.pyx: term and vote.

@cython.final
cdef class SaveTicket:
    """One save in flight; `run` may be called in any thread, once."""

    cdef shared_ptr[SaveWork] work

    def __init__(self):
        raise TypeError("a SaveTicket comes from HardState.begin_save")

    def run(self):
        """Both copies and their directory on disk (C9). DiskError, DiskFullError."""
        with nogil:
            dereference(self.work).run()


@cython.final
cdef class HardState:
    """current_term and voted_for in two files; see copycat.storage.interface.HardStateStore."""

    cdef unique_ptr[CHardState] state

    def __init__(self):
        raise TypeError("a HardState comes from open_hard_state")

    @property
    def current_term(self):
        """0 before the first vote."""
        return dereference(self.state).value().term

    @property
    def voted_for(self):
        """A member's id, or 0."""
        cdef HardValue value = dereference(self.state).value()
        return int.from_bytes(as_bytes(View(value.voted_for.data(), 16)), "little")

    @property
    def generation(self):
        """Grows by one with every save."""
        return dereference(self.state).value().generation

    @property
    def repaired(self):
        """How many copies open_hard_state wrote again (F5)."""
        return dereference(self.state).repaired()

    def begin_save(self, term, voted_for):
        """A ticket for this term and vote. InvariantError if the term would decrease (I2)."""
        cdef SaveTicket ticket = SaveTicket.__new__(SaveTicket)
        cdef MemberBytes member
        cdef bytes raw = voted_for.to_bytes(16, "little")
        memcpy(member.data(), PyBytes_AS_STRING(raw), 16)
        ticket.work = dereference(self.state).begin_save(term, member)
        return ticket

    def end_save(self, ticket):
        """After the ticket's run returned: the properties move."""
        dereference(self.state).end_save(dereference((<SaveTicket?> ticket).work))

    def rewrite(self):
        """Write and sync both copies again with a new generation (C7)."""
        with nogil:
            dereference(self.state).rewrite()


def open_hard_state(env, directory, *, create):
    """The newest good copy (F5); CorruptLogError when none is readable (F6).

    Both files missing: made with term 0 when `create`, else FileNotFoundError.
    """
    cdef HardState opened = HardState.__new__(HardState)
    opened.state.reset(new CHardState((<Env?> env).env, text_of(directory), create))
    return opened
