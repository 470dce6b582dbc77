// Python objects to C++ values and back, in bulk: buffers in, runs of entries out. Holds the GIL.
#pragma once

#include <Python.h>

#include <cstring>
#include <memory>
#include <span>
#include <stdexcept>
#include <vector>

#include "_raise.hpp"
#include "frame.hpp"

namespace copycat {

inline PyObject* checked(PyObject* object) {
    if (object == nullptr) throw PythonError();
    return object;
}

// A Python buffer that lives as long as the block. Any thread may release it.
inline Block hold_buffer(PyObject* object) {
    const auto release = [](Py_buffer* buffer) {
        const PyGILState_STATE state = PyGILState_Ensure();
        PyBuffer_Release(buffer);
        PyGILState_Release(state);
        delete buffer;
    };
    auto buffer = std::make_unique<Py_buffer>();
    if (PyObject_GetBuffer(object, buffer.get(), PyBUF_SIMPLE) != 0) throw PythonError();
    const View bytes(static_cast<const std::uint8_t*>(buffer->buf),
                     static_cast<std::size_t>(buffer->len));
    return Block{std::shared_ptr<const Py_buffer>(buffer.release(), release), bytes};
}

// The numbers of an array("Q"); the block keeps them.
inline std::span<const std::uint64_t> index_span(const Block& block) {
    return {reinterpret_cast<const std::uint64_t*>(block.bytes.data()),
            block.bytes.size() / sizeof(std::uint64_t)};
}

// A path; shared where it must outlive the GIL, for Cython's own conversions copy it where nobody
// catches what a copy may throw.
inline std::string text_of(PyObject* object) {
    Py_ssize_t size = 0;
    if (!PyUnicode_Check(object)) {
        char* bytes = nullptr;
        if (PyBytes_AsStringAndSize(object, &bytes, &size) != 0) throw PythonError();
        return {bytes, static_cast<std::size_t>(size)};
    }
    const char* const text = PyUnicode_AsUTF8AndSize(object, &size);
    if (text == nullptr) throw PythonError();
    return {text, static_cast<std::size_t>(size)};
}
inline std::shared_ptr<const std::string> shared_text(PyObject* object) {
    return std::make_shared<const std::string>(text_of(object));
}

// A sequence of sequences of numbers.
inline std::vector<std::vector<std::uint64_t>> number_lists(PyObject* sequence) {
    using Items = std::unique_ptr<PyObject, void (*)(PyObject*)>;
    constexpr const char* what = "groups are sequences of segment ids";
    const Items groups(checked(PySequence_Fast(sequence, what)), Py_DecRef);
    std::vector<std::vector<std::uint64_t>> out;
    for (Py_ssize_t nth = 0; nth < PySequence_Fast_GET_SIZE(groups.get()); ++nth) {
        const Items ids(
            checked(PySequence_Fast(PySequence_Fast_GET_ITEM(groups.get(), nth), what)),
            Py_DecRef);
        std::vector<std::uint64_t>& group = out.emplace_back();
        for (Py_ssize_t at = 0; at < PySequence_Fast_GET_SIZE(ids.get()); ++at) {
            const auto value = PyLong_AsUnsignedLongLong(PySequence_Fast_GET_ITEM(ids.get(), at));
            if (value == ~0ULL && PyErr_Occurred()) throw PythonError();
            group.push_back(value);
        }
    }
    return out;
}

// The buffers of the items of one batch, released at the end of the call.
class ItemBuffers {
public:
    ItemBuffers() = default;
    ItemBuffers(const ItemBuffers&) = delete;
    ItemBuffers& operator=(const ItemBuffers&) = delete;
    ~ItemBuffers() {
        for (Py_buffer& buffer : buffers_) PyBuffer_Release(&buffer);
    }

    // A sequence of (kind, session, first_sequence, acked_sequence, count, body).
    void take(PyObject* sequence) {
        const std::unique_ptr<PyObject, void (*)(PyObject*)> items(
            checked(PySequence_Fast(sequence, "items are a sequence of tuples")), Py_DecRef);
        const Py_ssize_t count = PySequence_Fast_GET_SIZE(items.get());
        buffers_.reserve(static_cast<std::size_t>(count));
        items_.reserve(static_cast<std::size_t>(count));
        for (Py_ssize_t nth = 0; nth < count; ++nth)
            take_item(PySequence_Fast_GET_ITEM(items.get(), nth));
    }
    const std::vector<EncodeItem>& items() const { return items_; }
    std::size_t nbytes() const { return nbytes_; }

private:
    static std::uint64_t number(PyObject* item, Py_ssize_t position, std::uint64_t limit) {
        const auto value = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(item, position));
        if (value == ~0ULL && PyErr_Occurred()) throw PythonError();
        if (value > limit) throw std::invalid_argument("a number of an item is too large");
        return value;
    }
    void take_item(PyObject* item) {
        if (!PyTuple_Check(item) || PyTuple_GET_SIZE(item) != 6) {
            PyErr_SetString(PyExc_TypeError, "an item is a tuple of six");
            throw PythonError();
        }
        EncodeItem encode_item;
        encode_item.kind = static_cast<std::uint8_t>(number(item, 0, 255));
        encode_item.session = number(item, 1, ~0ULL);
        encode_item.first_sequence = number(item, 2, ~0ULL);
        encode_item.acked_sequence = number(item, 3, ~0ULL);
        encode_item.count = static_cast<std::uint32_t>(number(item, 4, 0xffffffff));
        Py_buffer buffer;
        if (PyObject_GetBuffer(PyTuple_GET_ITEM(item, 5), &buffer, PyBUF_SIMPLE) != 0)
            throw PythonError();
        buffers_.push_back(buffer);
        encode_item.body = View(static_cast<const std::uint8_t*>(buffer.buf),
                                static_cast<std::size_t>(buffer.len));
        nbytes_ += encode_item.body.size();
        items_.push_back(encode_item);
    }

    std::vector<Py_buffer> buffers_;
    std::vector<EncodeItem> items_;
    std::size_t nbytes_ = 0;
};

inline PyObject* as_bytes(View bytes) {
    return checked(PyBytes_FromStringAndSize(reinterpret_cast<const char*>(bytes.data()),
                                             static_cast<Py_ssize_t>(bytes.size())));
}

inline PyObject* payload_list(const Runs& runs, const RunPart& part) {
    PyObject* list = checked(PyList_New(part.count));
    for (std::uint32_t nth = 0; nth < part.count; ++nth) {
        const View payload = runs.payloads[part.first_payload + nth];
        PyObject* bytes = PyBytes_FromStringAndSize(reinterpret_cast<const char*>(payload.data()),
                                                    static_cast<Py_ssize_t>(payload.size()));
        if (bytes == nullptr) {
            Py_DECREF(list);
            throw PythonError();
        }
        PyList_SET_ITEM(list, nth, bytes);
    }
    return list;
}

// One copycat.types.Run, filled in place: going through its __new__ costs six times as much.
inline PyObject* run_object(const Runs& runs, const RunPart& part, PyTypeObject* type) {
    PyObject* run = checked(type->tp_alloc(type, 7));
    const std::unique_ptr<PyObject, void (*)(PyObject*)> guard(run, Py_DecRef);
    PyTuple_SET_ITEM(run, 0, checked(PyLong_FromUnsignedLongLong(part.first_index)));
    PyTuple_SET_ITEM(run, 1, checked(PyLong_FromLong(part.kind)));
    PyTuple_SET_ITEM(run, 2, checked(PyLong_FromUnsignedLongLong(part.time_ms)));
    PyTuple_SET_ITEM(run, 3, checked(PyLong_FromUnsignedLongLong(part.session)));
    PyTuple_SET_ITEM(run, 4, checked(PyLong_FromUnsignedLongLong(part.first_sequence)));
    PyTuple_SET_ITEM(run, 5, checked(PyLong_FromUnsignedLongLong(part.acked)));
    PyTuple_SET_ITEM(run, 6, payload_list(runs, part));
    Py_INCREF(run);
    return run;
}

// An instance of `type`, a tuple subclass with one field for each of `numbers`. Made without a
// call of the constructor, which is a Python function and takes several times as long.
inline PyObject* number_tuple(PyObject* type, std::initializer_list<std::uint64_t> numbers) {
    auto* const as_type = reinterpret_cast<PyTypeObject*>(type);
    PyObject* tuple = checked(as_type->tp_alloc(as_type, static_cast<Py_ssize_t>(numbers.size())));
    const std::unique_ptr<PyObject, void (*)(PyObject*)> guard(tuple, Py_DecRef);
    Py_ssize_t position = 0;
    for (const std::uint64_t number : numbers)
        PyTuple_SET_ITEM(tuple, position++, checked(PyLong_FromUnsignedLongLong(number)));
    Py_INCREF(tuple);
    return tuple;
}

// `type` is copycat.types.Span.
inline PyObject* span_object(const Span& span, PyObject* type) {
    return number_tuple(type, {span.term, span.first, span.end});
}

// `type` is copycat.types.EntryId.
inline PyObject* entry_id_object(const EntryId& entry, PyObject* type) {
    return number_tuple(type, {entry.term, entry.index});
}

// An instance of `type`, a tuple subclass of three: index, term, payload. As quick as run_object.
inline PyObject* entry_object(PyObject* index, std::uint64_t term, View payload,
                              PyTypeObject* type) {
    if (!PyType_FastSubclass(type, Py_TPFLAGS_TUPLE_SUBCLASS))
        throw std::invalid_argument("an entry is made as a subclass of tuple");
    PyObject* entry = checked(type->tp_alloc(type, 3));
    const std::unique_ptr<PyObject, void (*)(PyObject*)> guard(entry, Py_DecRef);
    Py_INCREF(index);
    PyTuple_SET_ITEM(entry, 0, index);
    PyTuple_SET_ITEM(entry, 1, checked(PyLong_FromUnsignedLongLong(term)));
    PyTuple_SET_ITEM(entry, 2, as_bytes(payload));
    Py_INCREF(entry);
    return entry;
}

// A list of bytes as one body: u32 lengths, then the bytes. None when it holds anything else
// than bytes, or more than `limit` bytes of them.
inline PyObject* body_object(PyObject* list, std::size_t limit) {
    const Py_ssize_t count = PyList_GET_SIZE(list);
    std::size_t total = 0;
    for (Py_ssize_t nth = 0; nth < count; ++nth) {
        PyObject* item = PyList_GET_ITEM(list, nth);
        if (!PyBytes_CheckExact(item)) Py_RETURN_NONE;
        total += static_cast<std::size_t>(PyBytes_GET_SIZE(item));
        if (total > limit) Py_RETURN_NONE;
    }
    const std::size_t prefix = 4 * static_cast<std::size_t>(count);
    PyObject* body =
        checked(PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(prefix + total)));
    auto* lengths = reinterpret_cast<std::uint8_t*>(PyBytes_AS_STRING(body));
    std::uint8_t* to = lengths + prefix;
    for (Py_ssize_t nth = 0; nth < count; ++nth) {
        PyObject* item = PyList_GET_ITEM(list, nth);
        const auto size = static_cast<std::size_t>(PyBytes_GET_SIZE(item));
        store(lengths + 4 * nth, static_cast<std::uint32_t>(size));
        std::memcpy(to, PyBytes_AS_STRING(item), size);
        to += size;
    }
    return body;
}

// list[Run]; `type` is copycat.types.Run.
inline PyObject* run_list(const Frames& frames, std::uint64_t first, std::uint64_t end,
                          Cursor* cursor, PyObject* type) {
    const Runs runs = cut_runs(frames, first, end, cursor);
    PyObject* list = checked(PyList_New(static_cast<Py_ssize_t>(runs.parts.size())));
    const std::unique_ptr<PyObject, void (*)(PyObject*)> guard(list, Py_DecRef);
    for (std::size_t nth = 0; nth < runs.parts.size(); ++nth)
        PyList_SET_ITEM(list, static_cast<Py_ssize_t>(nth),
                        run_object(runs, runs.parts[nth], reinterpret_cast<PyTypeObject*>(type)));
    Py_INCREF(list);
    return list;
}

}  // namespace copycat
