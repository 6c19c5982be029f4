/*
 * As pyjiva.block_sums: a block has 4 KiB, the last one may be short; its checksum is its XXH3-64, little-endian,
 * and 1 in place of 0.
 */

#include "functions.h"
#include "sums.h"

static sums_of_blocks *chosen_sums = sums_of_blocks_any;
static first_bad_block *chosen_first_bad = first_bad_block_any;

void choose_sums(void)
{
#ifdef HAS_AVX2_SUMS
    if (__builtin_cpu_supports("avx2")) {
        chosen_sums = sums_of_blocks_avx2;
        chosen_first_bad = first_bad_block_avx2;
    }
#endif
}

static Py_ssize_t blocks_in(Py_ssize_t size_bytes)
{
    return size_bytes / BLOCK_BYTES + (size_bytes % BLOCK_BYTES != 0);
}

PyObject *sums_of(PyObject *module, PyObject *data)
{
    (void)module;
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE))
        return NULL;
    PyObject *sums = PyBytes_FromStringAndSize(NULL, blocks_in(view.len) * SUM_BYTES);
    if (sums)
        chosen_sums(view.buf, (size_t)view.len, (unsigned char *)PyBytes_AS_STRING(sums));
    PyBuffer_Release(&view);
    return sums;
}

PyObject *first_bad(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    Py_buffer sums, data;
    if (!has_arguments("first_bad", count, 2) || PyObject_GetBuffer(arguments[0], &sums, PyBUF_SIMPLE))
        return NULL;
    PyObject *number = NULL;
    if (!PyObject_GetBuffer(arguments[1], &data, PyBUF_SIMPLE)) {
        if (sums.len == blocks_in(data.len) * SUM_BYTES)
            number = PyLong_FromSsize_t(chosen_first_bad(data.buf, (size_t)data.len, sums.buf));
        else
            PyErr_Format(PyExc_ValueError, "%zd bytes of checksums for %zd of data", sums.len, data.len);
        PyBuffer_Release(&data);
    }
    PyBuffer_Release(&sums);
    return number;
}
