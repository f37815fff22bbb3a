// Loaded into a real `bw` before it: writes down which requests its server gets.
'use strict';
const fs = require('node:fs');
const http = require('node:http');
const emit = http.Server.prototype.emit;
http.Server.prototype.emit = function (event, request, ...rest) {
  if (event === 'request') fs.appendFileSync(process.env.COUNTED, `${request.method} ${request.url}\n`);
  return emit.call(this, event, request, ...rest);
};
