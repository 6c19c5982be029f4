/*
 * pyjiva.native_sums: what pyjiva.block_sums does with one call for each block, in one for all of them.
 *
 * A block has 4 KiB, the last one may be short; its checksum is its XXH3-64, little-endian, and 1 in place of 0.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "native_sums.h"

static sums_of_blocks *chosen = sums_of_blocks_any;

static PyObject *sums_of(PyObject *module, PyObject *data)
{
    (void)module;
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE))
        return NULL;
    Py_ssize_t blocks = view.len / BLOCK_BYTES + (view.len % BLOCK_BYTES != 0);
    PyObject *sums = PyBytes_FromStringAndSize(NULL, blocks * SUM_BYTES);
    if (sums)
        chosen(view.buf, (size_t)view.len, (unsigned char *)PyBytes_AS_STRING(sums));
    PyBuffer_Release(&view);
    return sums;
}

static PyMethodDef methods[] = {
    {"sums_of", sums_of, METH_O, "The checksums of the blocks of a contiguous buffer, one after the other."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "pyjiva.native_sums",
    .m_doc = "The checksums of many blocks in one call.",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit_native_sums(void)
{
#ifdef HAS_AVX2_SUMS
    if (__builtin_cpu_supports("avx2"))
        chosen = sums_of_blocks_avx2;
#endif
    return PyModule_Create(&definition);
}
