/* As pyjiva.sparse.file_sys: reads that the page cache answers, by preadv2(2) with RWF_NOWAIT. */

#include "functions.h"

#include <errno.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef RWF_NOWAIT
#define RWF_NOWAIT 8
#endif

/* Copying less takes less time than to give the interpreter's lock away and to ask for it again. */
enum { WITHOUT_LOCK_BYTES_MIN = 64 * 1024 };

/* How much was read; -1: nothing is there without a wait; -2: an OSError is set. */
static Py_ssize_t nowait(int fd, void *into, Py_ssize_t size_bytes, int64_t offset_bytes)
{
    struct iovec whole = {into, (size_t)size_bytes};
    /* By its number, as not every C library has the function.  The kernel takes the offset in two halves, of
     * which a 64-bit one looks at the first alone. */
    unsigned long low = (unsigned long)offset_bytes, high = (unsigned long)((uint64_t)offset_bytes >> 32);
    long done;
    for (;;) {
        if (size_bytes < WITHOUT_LOCK_BYTES_MIN) {
            done = syscall(SYS_preadv2, (long)fd, &whole, 1L, low, high, (long)RWF_NOWAIT);
        } else {
            Py_BEGIN_ALLOW_THREADS
            done = syscall(SYS_preadv2, (long)fd, &whole, 1L, low, high, (long)RWF_NOWAIT);
            Py_END_ALLOW_THREADS
        }
        if (done >= 0)
            return done;
        if (errno == EAGAIN)
            return -1;
        if (errno != EINTR) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -2;
        }
        if (PyErr_CheckSignals())
            return -2;
    }
}

static int place(PyObject *fd_argument, PyObject *offset_argument, int *fd, int64_t *offset_bytes)
{
    long number = PyLong_AsLong(fd_argument);
    *offset_bytes = PyLong_AsLongLong(offset_argument);
    if ((number == -1 || *offset_bytes == -1) && PyErr_Occurred())
        return 0;
    *fd = number < 0 || number > INT32_MAX ? -1 : (int)number; /* EBADF */
    return 1;
}

PyObject *read_nowait(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    int fd;
    int64_t offset_bytes;
    if (!has_arguments("read_nowait", count, 3) || !place(arguments[0], arguments[2], &fd, &offset_bytes))
        return NULL;
    Py_ssize_t size_bytes = PyLong_AsSsize_t(arguments[1]);
    if (size_bytes == -1 && PyErr_Occurred())
        return NULL;
    PyObject *data = PyBytes_FromStringAndSize(NULL, size_bytes); /* nobody else has it yet */
    if (!data)
        return NULL;
    Py_ssize_t done = nowait(fd, PyBytes_AS_STRING(data), size_bytes, offset_bytes);
    if (done == size_bytes)
        return data;
    Py_DECREF(data);
    if (done == -2)
        return NULL;
    Py_RETURN_NONE;
}

PyObject *read_nowait_into(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    int fd;
    int64_t offset_bytes;
    if (!has_arguments("read_nowait_into", count, 3) || !place(arguments[0], arguments[2], &fd, &offset_bytes))
        return NULL;
    Py_buffer view;
    if (PyObject_GetBuffer(arguments[1], &view, PyBUF_WRITABLE))
        return NULL;
    Py_ssize_t done = nowait(fd, view.buf, view.len, offset_bytes);
    int is_whole = done == view.len;
    PyBuffer_Release(&view);
    return done == -2 ? NULL : PyBool_FromLong(is_whole);
}
