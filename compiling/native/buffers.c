/* As pyjiva.buffers. */

#include "functions.h"

PyObject *bytes_at(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    if (!has_arguments("bytes_at", count, 3))
        return NULL;
    Py_ssize_t start = PyLong_AsSsize_t(arguments[1]), size = PyLong_AsSsize_t(arguments[2]);
    if ((start == -1 || size == -1) && PyErr_Occurred())
        return NULL;
    Py_buffer view;
    if (PyObject_GetBuffer(arguments[0], &view, PyBUF_SIMPLE))
        return NULL;
    PyObject *copy = NULL;
    if (start >= 0 && size >= 0 && start <= view.len && size <= view.len - start)
        copy = PyBytes_FromStringAndSize((const char *)view.buf + start, size);
    else
        PyErr_Format(PyExc_ValueError, "%zd bytes at %zd of %zd", size, start, view.len);
    PyBuffer_Release(&view);
    return copy;
}
