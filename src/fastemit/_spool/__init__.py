"""The spool: segment files in a directory, so that accepted events outlive the process.

Each emitter of each process has a directory of its own under the spool. The directory has a lock, and the kernel
releases it when the process dies. `ground` has the steps on the file system, `home` the directories and their locks,
and `survey` lists what they hold. `estate` reads what dead processes have left, `spool` manages the files of a living
one, and `life` holds the state of a spool in one process. Nothing here knows HTTP: files are lent to an `EventBuffer`,
and what others have left is read into it. Other packages use only the names below.
"""

from fastemit._spool.estate import Estate
from fastemit._spool.ground import UnfitSpoolError, checked_root
from fastemit._spool.home import Home, Owner
from fastemit._spool.spool import Spool
from fastemit._spool.survey import Facts, survey

__all__ = ["Estate", "Facts", "Home", "Owner", "Spool", "UnfitSpoolError", "checked_root", "survey"]
