/* natives.h - what the language has beyond its syntax: clock, gc, and the class WeakMap. */
#ifndef LOX_NATIVES_H
#define LOX_NATIVES_H

/* Defines the global variables. The machine is open. */
void natives_define(void);

#endif
