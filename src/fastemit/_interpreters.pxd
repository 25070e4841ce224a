"""The end of a subinterpreter that nobody destroys. Python runs only the exit handlers of the main interpreter."""


cdef extern from *:
    """
    /* In the main interpreter, while it ends: make the subinterpreter whose number is `self` run its own end. */
    static PyObject *fastemit_end_of(PyObject *self, PyObject *unused) {
        int64_t number = (int64_t) PyLong_AsLongLong(self);
        PyInterpreterState *its = PyInterpreterState_Head();
        PyThreadState *there, *here;
        PyObject *module, *done = NULL;
        (void) unused;
        while (its != NULL && PyInterpreterState_GetID(its) != number)
            its = PyInterpreterState_Next(its);
        /* If it was destroyed, it has run its exit handlers. */
        if (its == NULL) Py_RETURN_NONE;
        there = PyThreadState_New(its);
        if (there == NULL) return PyErr_NoMemory();
        here = PyThreadState_Swap(there);
        module = PyImport_ImportModule("fastemit._process.lifecycle");
        if (module != NULL) done = PyObject_CallMethod(module, "end", NULL);
        if (done == NULL) PyErr_WriteUnraisable(NULL);
        Py_XDECREF(done);
        Py_XDECREF(module);
        PyThreadState_Clear(there);
        PyThreadState_Swap(here);
        PyThreadState_Delete(there);
        Py_RETURN_NONE;
    }
    static PyMethodDef fastemit_end_of_def = {"fastemit_end_of", fastemit_end_of, METH_NOARGS, NULL};

    static int fastemit_in_subinterpreter(void) {
        return PyInterpreterState_Get() != PyInterpreterState_Main();
    }

    /* In a subinterpreter: register this function with the main interpreter, which has the same lock. */
    static int fastemit_end_with_main(void) {
        int64_t number = PyInterpreterState_GetID(PyInterpreterState_Get());
        PyThreadState *there = PyThreadState_New(PyInterpreterState_Main()), *here;
        PyObject *self, *function = NULL, *module = NULL, *done = NULL;
        if (there == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        here = PyThreadState_Swap(there);
        self = PyLong_FromLongLong((long long) number);
        if (self != NULL) function = PyCFunction_New(&fastemit_end_of_def, self);
        if (function != NULL) module = PyImport_ImportModule("atexit");
        if (module != NULL) done = PyObject_CallMethod(module, "register", "O", function);
        PyErr_Clear();
        Py_XDECREF(self);
        Py_XDECREF(function);
        Py_XDECREF(module);
        Py_XDECREF(done);
        PyThreadState_Clear(there);
        PyThreadState_Swap(here);
        PyThreadState_Delete(there);
        if (done == NULL) {
            PyErr_SetString(PyExc_RuntimeError, "the main interpreter takes no exit handler");
            return -1;
        }
        return 0;
    }
    """
    bint is_subinterpreter "fastemit_in_subinterpreter" () noexcept
    int register_with_main "fastemit_end_with_main" () except -1
