/* What `pyjiva.native` has, one file for each subject: see native.c. */

#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

typedef PyObject *fast_function(PyObject *module, PyObject *const *arguments, Py_ssize_t count);

/* blocks.c */
PyObject *sums_of(PyObject *module, PyObject *data);
fast_function first_bad;
void choose_sums(void);

/* buffers.c */
fast_function bytes_at;

/* pdus.c */
fast_function header_of_words;

/* files.c */
fast_function read_nowait;
fast_function read_nowait_into;

/* frames.c */
fast_function frame_header;
PyObject *frame_fields(PyObject *module, PyObject *header);
void make_crc_table(void);

/* Whether as many arguments came as are wanted; if not, a TypeError is set. */
static inline int has_arguments(const char *function, Py_ssize_t count, Py_ssize_t wanted)
{
    if (count == wanted)
        return 1;
    PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, not %zd", function, wanted, count);
    return 0;
}
