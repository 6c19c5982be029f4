/* As pyjiva.replication.frame, which has the layout and says what the fields mean. */

#include "functions.h"

#include <endian.h>
#include <stdint.h>
#include <string.h>

enum { CHECKED_BYTES = 60, HEADER_BYTES = 64, FIELDS = 9 };

static const unsigned char START[] = {'P', 'J', 'V', 'R', 1};

static uint32_t crc_table[256];

/* Of the CRC-32 of zlib, whose own takes the way of long data. */
void make_crc_table(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? UINT32_C(0xEDB88320) : 0);
        crc_table[byte] = crc;
    }
}

static uint32_t crc_of(const unsigned char *header)
{
    uint32_t crc = UINT32_MAX;
    for (int at = 0; at < CHECKED_BYTES; at++)
        crc = crc >> 8 ^ crc_table[(crc ^ header[at]) & 0xFF];
    return crc ^ UINT32_MAX;
}

static void put64(unsigned char *into, uint64_t number)
{
    number = htole64(number);
    memcpy(into, &number, sizeof number);
}

static void put32(unsigned char *into, uint32_t number)
{
    number = htole32(number);
    memcpy(into, &number, sizeof number);
}

static uint64_t get64(const unsigned char *from)
{
    uint64_t number;
    memcpy(&number, from, sizeof number);
    return le64toh(number);
}

static uint32_t get32(const unsigned char *from)
{
    uint32_t number;
    memcpy(&number, from, sizeof number);
    return le32toh(number);
}

PyObject *frame_header(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    static const uint64_t most[FIELDS] = {
        UINT8_MAX, UINT16_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT32_MAX,
    };
    if (!has_arguments("frame_header", count, FIELDS))
        return NULL;
    uint64_t fields[FIELDS];
    for (int number = 0; number < FIELDS; number++) {
        fields[number] = PyLong_AsUnsignedLongLong(arguments[number]);
        if (fields[number] == UINT64_MAX && PyErr_Occurred())
            return NULL;
        if (fields[number] > most[number]) {
            PyErr_Format(PyExc_OverflowError, "field %d of a frame is too large", number);
            return NULL;
        }
    }
    unsigned char header[HEADER_BYTES];
    memcpy(header, START, sizeof START);
    header[5] = (unsigned char)fields[0];
    header[6] = (unsigned char)fields[1];
    header[7] = (unsigned char)(fields[1] >> 8);
    for (int number = 2; number < 8; number++)
        put64(header + 8 * (number - 1), fields[number]);
    put32(header + 56, (uint32_t)fields[8]);
    put32(header + CHECKED_BYTES, crc_of(header));
    return PyBytes_FromStringAndSize((const char *)header, HEADER_BYTES);
}

/* A tuple of them; None: these are not the bytes of a header. */
static PyObject *fields_of(const unsigned char *header, Py_ssize_t size_bytes)
{
    if (size_bytes != HEADER_BYTES || memcmp(header, START, sizeof START) || get32(header + CHECKED_BYTES) != crc_of(header))
        Py_RETURN_NONE;
    PyObject *fields = PyTuple_New(FIELDS);
    if (!fields)
        return NULL;
    for (int number = 0; number < FIELDS; number++) {
        uint64_t field = number == 0   ? header[5]
                         : number == 1 ? (uint64_t)(header[6] | header[7] << 8)
                         : number < 8  ? get64(header + 8 * (number - 1))
                                       : get32(header + 56);
        PyObject *object = PyLong_FromUnsignedLongLong(field);
        if (!object) {
            Py_DECREF(fields);
            return NULL;
        }
        PyTuple_SET_ITEM(fields, number, object);
    }
    return fields;
}

PyObject *frame_fields(PyObject *module, PyObject *header)
{
    (void)module;
    Py_buffer view;
    if (PyObject_GetBuffer(header, &view, PyBUF_SIMPLE))
        return NULL;
    PyObject *fields = fields_of(view.buf, view.len);
    PyBuffer_Release(&view);
    return fields;
}
