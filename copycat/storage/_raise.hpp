// The one funnel from the log's C++ exceptions to copycat.errors. Needs the GIL.
#pragma once

#include <Python.h>

#include <initializer_list>
#include <new>
#include <string>

#include "errors.hpp"

namespace copycat {

// A Python exception is set already; the C++ frames in between only unwind.
struct PythonError {};

struct Field {
    const char* name;
    PyObject* value;  // stolen
};

// Null, with a Python exception set, when there is no memory for it.
inline PyObject* as_text(const std::string& text) {
    return PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace");
}
inline Field path_field(const Error& error) { return {"path", as_text(error.path)}; }
inline Field offset_field(const Error& error) {
    return {"offset", PyLong_FromLongLong(error.offset)};
}
inline Field index_field(const Error& error) {
    return {"index", PyLong_FromUnsignedLongLong(error.index)};
}

// Sets copycat.errors.<type>(message, **fields).
inline void set_error(const char* type, const char* message, std::initializer_list<Field> fields) {
    PyObject* module = PyImport_ImportModule("copycat.errors");
    PyObject* callable = module ? PyObject_GetAttrString(module, type) : nullptr;
    PyObject* text = as_text(message);
    PyObject* arguments = text ? PyTuple_Pack(1, text) : nullptr;
    PyObject* keywords = PyDict_New();
    for (const Field& field : fields) {
        if (keywords && field.value) PyDict_SetItemString(keywords, field.name, field.value);
        Py_XDECREF(field.value);
    }
    PyObject* error =
        callable && arguments ? PyObject_Call(callable, arguments, keywords) : nullptr;
    if (error)
        PyErr_SetObject(callable, error);
    else if (!PyErr_Occurred())
        PyErr_NoMemory();
    Py_XDECREF(error);
    Py_XDECREF(keywords);
    Py_XDECREF(arguments);
    Py_XDECREF(text);
    Py_XDECREF(callable);
    Py_XDECREF(module);
}

inline void set_io_error(const char* type, const IoError& error) {
    set_error(type, error.what(),
              {path_field(error),
               offset_field(error),
               {"operation", as_text(error.operation)},
               {"errno", PyLong_FromLong(error.number)}});
}

inline void raise_error() {
    try {
        throw;
    } catch (const PythonError&) {
    } catch (const NotFoundError& error) {
        PyObject* values =
            Py_BuildValue("(isN)", error.number, "no such file", as_text(error.path));
        PyErr_SetObject(PyExc_FileNotFoundError, values);
        Py_XDECREF(values);
    } catch (const DiskFullError& error) {
        set_io_error("DiskFullError", error);
    } catch (const ResourceError& error) {
        set_io_error("ResourceError", error);
    } catch (const SyncRefusedError& error) {
        set_io_error("SyncUnsupportedError", error);
    } catch (const IoError& error) {
        set_io_error("DiskError", error);
    } catch (const CorruptError& error) {
        set_error("CorruptLogError", error.what(),
                  {path_field(error), offset_field(error), index_field(error)});
    } catch (const FormatError& error) {
        set_error("FormatVersionError", error.what(), {path_field(error)});
    } catch (const InUseError& error) {
        set_error("DirectoryInUseError", error.what(),
                  {path_field(error), {"pid", PyLong_FromLongLong(error.pid)}});
    } catch (const PoisonedError& error) {
        set_error("LogPoisonedError", error.what(),
                  {path_field(error), {"errno", PyLong_FromLong(error.number)}});
    } catch (const ProtocolError& error) {
        set_error("ProtocolError", error.what(), {offset_field(error), index_field(error)});
    } catch (const TooLargeError& error) {
        set_error("EntryTooLargeError", error.what(),
                  {{"size", PyLong_FromUnsignedLongLong(error.size)},
                   {"limit", PyLong_FromUnsignedLongLong(error.limit)}});
    } catch (const InvariantError& error) {
        set_error("InvariantError", error.what(), {path_field(error), offset_field(error)});
    } catch (const std::invalid_argument& error) {
        PyErr_SetString(PyExc_ValueError, error.what());
    } catch (const std::out_of_range& error) {
        PyErr_SetString(PyExc_IndexError, error.what());
    } catch (const std::bad_alloc&) {
        set_error("OutOfMemoryError", "the process got no memory for this call", {});
    } catch (const std::exception& error) {
        set_error("InternalError", error.what(), {});
    } catch (...) {
        set_error("InternalError", "a C++ exception of an unknown type", {});
    }
}

}  // namespace copycat
