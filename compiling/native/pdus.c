/* As pyjiva.iscsi.pdu. */

#include "functions.h"

#include <endian.h>
#include <stdint.h>
#include <string.h>

enum { HEADER_BYTES = 48, WORDS = 9 };

PyObject *header_of_words(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    if (!has_arguments("header_of_words", count, WORDS))
        return NULL;
    unsigned char header[HEADER_BYTES] = {0};
    for (int number = 0; number < WORDS; number++) {
        unsigned long long word = PyLong_AsUnsignedLongLong(arguments[number]);
        if (word > UINT32_MAX) {
            if (!PyErr_Occurred())
                PyErr_Format(PyExc_OverflowError, "word %d of a header is too large", number);
            return NULL;
        }
        uint32_t as_sent = htobe32((uint32_t)word);
        memcpy(header + number * sizeof as_sent, &as_sent, sizeof as_sent);
    }
    return PyBytes_FromStringAndSize((const char *)header, HEADER_BYTES);
}
