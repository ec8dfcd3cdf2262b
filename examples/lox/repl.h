/* repl.h - reads a line, runs it, until the end of input. */
#ifndef LOX_REPL_H
#define LOX_REPL_H

void repl(void);

#endif
